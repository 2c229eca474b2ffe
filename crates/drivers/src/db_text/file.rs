//! The text of a table: a line that declares its columns, and a line for each row.

use host::db::DbValue;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ColumnKind {
    Int,
    Long,
    Double,
    Str,
    String,
    Blob,
    Time,
}

impl ColumnKind {
    /// Only the first letters count, as in the reference.
    fn parse(word: &str) -> Option<ColumnKind> {
        let word = word.trim().to_ascii_lowercase();
        Some(match word.chars().next()? {
            'i' => ColumnKind::Int,
            'l' => ColumnKind::Long,
            'd' => ColumnKind::Double,
            's' if word.contains('i') => ColumnKind::String,
            's' => ColumnKind::Str,
            'b' => ColumnKind::Blob,
            't' => ColumnKind::Time,
            _ => return None,
        })
    }

    fn word(self) -> &'static str {
        match self {
            ColumnKind::Int => "int",
            ColumnKind::Long => "long",
            ColumnKind::Double => "double",
            ColumnKind::Str => "str",
            ColumnKind::String => "string",
            ColumnKind::Blob => "blob",
            ColumnKind::Time => "time",
        }
    }

    pub fn sql(self) -> &'static str {
        match self {
            ColumnKind::Int | ColumnKind::Long | ColumnKind::Time => "integer",
            ColumnKind::Double => "real",
            ColumnKind::Str | ColumnKind::String => "text",
            ColumnKind::Blob => "blob",
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Column {
    pub name: String,
    pub kind: ColumnKind,
    pub nullable: bool,
    /// Counted up when a row does not say.
    pub auto: bool,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Table {
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<DbValue>>,
}

/// Reads a table; the error names the line.
pub fn parse(text: &str) -> Result<Table, String> {
    let mut lines = text.lines().enumerate();
    let (_, first) = lines.next().ok_or("it is empty")?;
    let columns = columns(first).ok_or_else(|| format!("line 1: `{first}` does not declare columns"))?;
    let mut rows = Vec::new();
    for (i, line) in lines.filter(|(_, line)| !line.is_empty()) {
        let fields = split(line);
        if fields.len() != columns.len() {
            return Err(format!(
                "line {}: {} fields, the table has {} columns",
                i + 1,
                fields.len(),
                columns.len()
            ));
        }
        let cells = fields.into_iter().zip(&columns).map(|(field, column)| {
            cell(field, column).map_err(|why| format!("line {}: {}: {why}", i + 1, column.name))
        });
        rows.push(cells.collect::<Result<_, _>>()?);
    }
    Ok(Table { columns, rows })
}

/// `name(type,attribute) name(type)`
fn columns(line: &str) -> Option<Vec<Column>> {
    let mut columns: Vec<Column> = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('(')?;
        let (inside, after) = after.split_once(')')?;
        let mut words = inside.split(',').map(str::trim);
        let kind = ColumnKind::parse(words.next()?)?;
        let (mut nullable, mut auto) = (false, false);
        for word in words {
            match word.chars().next()?.to_ascii_lowercase() {
                'n' => nullable = true,
                'a' if matches!(kind, ColumnKind::Int | ColumnKind::Long) => {
                    auto = !columns.iter().any(|c| c.auto)
                }
                _ => return None,
            }
        }
        let name = name.trim().to_string();
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return None;
        }
        columns.push(Column { name, kind, nullable, auto });
        rest = after.trim_start();
    }
    (!columns.is_empty()).then_some(columns)
}

/// Fields without their escapes; `None`: nothing stood there.
fn split(line: &str) -> Vec<Option<Vec<u8>>> {
    let (mut fields, mut field) = (Vec::new(), Vec::new());
    let mut bytes = line.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b':' => fields.push(Some(std::mem::take(&mut field)).filter(|f| !f.is_empty())),
            b'\\' => field.push(match bytes.next() {
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b't') => b'\t',
                Some(b'0') => 0,
                Some(other) => other,
                None => b'\\',
            }),
            byte => field.push(byte),
        }
    }
    fields.push(Some(field).filter(|f| !f.is_empty()));
    fields
}

fn cell(field: Option<Vec<u8>>, column: &Column) -> Result<DbValue, String> {
    let Some(field) = field else {
        return match column.kind {
            _ if column.nullable || column.auto => Ok(DbValue::Null),
            // Texts may be empty; the reference reads nothing else from it.
            ColumnKind::Str | ColumnKind::String | ColumnKind::Blob => Ok(DbValue::from("")),
            _ => Err("it cannot be null".to_string()),
        };
    };
    let text = String::from_utf8_lossy(&field).trim().to_string();
    match column.kind {
        ColumnKind::Int | ColumnKind::Long | ColumnKind::Time => {
            text.parse().map(DbValue::Int).map_err(|_| format!("`{text}` is no whole number"))
        }
        ColumnKind::Double => text.parse().map(DbValue::Real).map_err(|_| format!("`{text}` is no number")),
        ColumnKind::Str | ColumnKind::String => Ok(DbValue::Text(field.into())),
        ColumnKind::Blob => Ok(DbValue::Blob(field.into())),
    }
}

/// Writes a table as it is read.
pub fn write(table: &Table) -> Vec<u8> {
    let declared = table.columns.iter().map(|column| {
        let attribute = match column {
            Column { nullable: true, .. } => ",null",
            Column { auto: true, .. } => ",auto",
            _ => "",
        };
        format!("{}({}{attribute})", column.name, column.kind.word())
    });
    let mut out = declared.collect::<Vec<_>>().join(" ").into_bytes();
    out.push(b'\n');
    for row in &table.rows {
        for (i, value) in row.iter().enumerate() {
            if i > 0 {
                out.push(b':');
            }
            match value {
                DbValue::Real(x) => out.extend_from_slice(format!("{x:.2}").as_bytes()),
                value => value.text().unwrap_or_default().iter().for_each(|byte| escape(&mut out, *byte)),
            }
        }
        out.push(b'\n');
    }
    out
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    let letter = match byte {
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0 => b'0',
        b':' | b'\\' => byte,
        byte => return out.push(byte),
    };
    out.extend_from_slice(&[b'\\', letter]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written() {
        let text = "id(int,auto) name(str) flag(double) desc(string,null) when(time) raw(blob)\n\
                    1:nick:0.34:a\\tgood\\: friend:7:\\0x\n2:\\\\:-3.75::8:\n";
        let table = parse(text).expect("a table");
        assert_eq!(table.rows[0][3], DbValue::from("a\tgood: friend"));
        assert_eq!(table.rows[1][3], DbValue::Null);
        assert_eq!(String::from_utf8(write(&table)).expect("text"), text);
    }

    #[test]
    fn mistakes_name_their_line() {
        for (text, says) in [
            ("", "empty"),
            ("a(int\n1", "line 1"),
            ("a(color)\n", "line 1"),
            ("a(str) b(str)\nx\n", "line 2: 1 fields"),
            ("a(int)\nx\n", "line 2: a: `x`"),
            ("a(int) b(str)\n:x\n", "cannot be null"),
        ] {
            assert!(parse(text).is_err_and(|e| e.contains(says)), "{text}");
        }
    }
}
