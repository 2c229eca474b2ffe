//! What a directory answered, as a recording keeps it.

use super::session::Problem;
use bytes::Bytes;
use host::coded::Coded;
use ldap3::SearchEntry;

/// The entries of one search.
pub struct Entries(pub Vec<SearchEntry>);

type Texts = Vec<(String, Vec<String>)>;
type Binaries = Vec<(String, Vec<Bytes>)>;

impl Coded for Entries {
    fn put(&self, out: &mut Vec<u8>) {
        (self.0.len() as u64).put(out);
        for entry in &self.0 {
            let texts: Texts = entry.attrs.iter().map(|(name, all)| (name.clone(), all.clone())).collect();
            let bytes = |all: &Vec<Vec<u8>>| all.iter().map(|one| Bytes::copy_from_slice(one)).collect();
            let binaries: Binaries =
                entry.bin_attrs.iter().map(|(name, all)| (name.clone(), bytes(all))).collect();
            entry.dn.put(out);
            (texts, binaries).put(out);
        }
    }

    fn take(from: &mut &[u8]) -> Option<Entries> {
        let entries = (0..u64::take(from)?).map(|_| {
            let dn = String::take(from)?;
            let (texts, binaries): (Texts, Binaries) = Coded::take(from)?;
            let vectors = |all: Vec<Bytes>| all.into_iter().map(|one| one.to_vec()).collect();
            let bin_attrs = binaries.into_iter().map(|(name, all)| (name, vectors(all))).collect();
            Some(SearchEntry { dn, attrs: texts.into_iter().collect(), bin_attrs })
        });
        entries.collect::<Option<_>>().map(Entries)
    }
}

impl Coded for Problem {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Problem::Down => None,
            Problem::Failed(why) => Some(why.clone()),
        }
        .put(out);
    }

    fn take(from: &mut &[u8]) -> Option<Problem> {
        let why: Option<String> = Coded::take(from)?;
        Some(why.map_or(Problem::Down, Problem::Failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_and_problems_are_read_back() {
        let entry = SearchEntry {
            dn: "uid=a,o=x".into(),
            attrs: [("uid".to_string(), vec!["a".to_string(), "b".to_string()])].into(),
            bin_attrs: [("photo".to_string(), vec![vec![0, 255]])].into(),
        };
        let coded = Ok::<_, Problem>(Entries(vec![entry])).coded();
        let read: Result<Entries, Problem> = Coded::take(&mut &coded[..]).unwrap();
        let Ok(Entries(read)) = read else { panic!() };
        assert_eq!((read.len(), &read[0].dn[..]), (1, "uid=a,o=x"));
        assert_eq!(read[0].attrs["uid"], ["a", "b"]);
        assert_eq!(read[0].bin_attrs["photo"], [[0, 255]]);
        for (problem, why) in [(Problem::Down, None), (Problem::Failed("x".into()), Some("x"))] {
            let coded = Err::<Entries, _>(problem).coded();
            let read: Result<Entries, Problem> = Coded::take(&mut &coded[..]).unwrap();
            match read {
                Err(Problem::Failed(read)) => assert_eq!(why, Some(&read[..])),
                Err(Problem::Down) => assert_eq!(why, None),
                Ok(_) => panic!(),
            }
        }
    }
}
