//! `fermata mi`: runs a management command of a server that runs, by whatever way its script opens for that.

use crate::remote::Remote;
use serde_json::{Map, Value as Json, json};
use std::process::ExitCode;

const AFTER: &str = "\
Without --fifo, --datagram or --http the script says where the server listens: the one of -f, else
/etc/fermata/fermata.cfg, else /etc/opensips/opensips.cfg. It must load mi_fifo, mi_datagram, or httpd with mi_http.

Parameters are given by place or by name:
  fermata mi which                              names of all commands
  fermata mi help get_statistics                what one does
  fermata mi get_statistics core: tm:           counters of two groups
  fermata mi async_list                         what calls wait for now
  fermata mi ul_show_contact table_name=location aor=alice@example.com
  fermata mi --http 127.0.0.1:8888/mi uptime

Exit codes: 0 the command was run, 1 the server refused it, 255 no server was reached.";

#[derive(clap::Args, Debug, Default)]
#[command(after_help = AFTER)]
pub struct Options {
    #[command(flatten)]
    remote: Remote,
    /// The answer on one line
    #[arg(long)]
    pub compact: bool,
    /// The command, as `fermata mi which` lists them
    pub command: String,
    /// Its parameters: values in their order, or name=value
    #[arg(allow_hyphen_values = true)]
    pub params: Vec<String>,
}

pub fn run(options: &Options) -> ExitCode {
    let asked =
        options.remote.find().and_then(|server| server.ask(&options.command, &params(&options.params)));
    match asked {
        Ok(answer) => show(&answer, options.compact),
        Err(text) => failed(&text),
    }
}

fn failed(text: &str) -> ExitCode {
    eprintln!("fermata mi: {text}");
    ExitCode::from(crate::CANNOT_START)
}

/// Texts as they are, everything else as JSON.
fn show(answer: &Json, compact: bool) -> ExitCode {
    if let Some(error) = answer.get("error") {
        let text = |name: &str| error.get(name).and_then(Json::as_str).unwrap_or_default().to_owned();
        let (message, data) = (text("message"), text("data"));
        let data = if data.is_empty() { data } else { format!(": {data}") };
        eprintln!("fermata mi: the server refused it: {message}{data}");
        if error.get("code") == Some(&json!(-32601)) {
            eprintln!("fermata mi: `fermata mi which` lists the commands of the modules that are loaded");
        }
        return ExitCode::FAILURE;
    }
    let result = answer.get("result").unwrap_or(&Json::Null);
    match result {
        Json::String(text) => println!("{text}"),
        other if compact => println!("{other}"),
        other => println!("{other:#}"),
    }
    ExitCode::SUCCESS
}

/// `name=value` everywhere is by name; one value without a name, and all are by place.
fn params(params: &[String]) -> Json {
    let named = |text: &str| {
        let (name, value) = text.split_once('=')?;
        let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        is_name.then(|| (name.to_owned(), json!(value)))
    };
    let by_name: Option<Map<String, Json>> = params.iter().map(|p| named(p)).collect();
    match by_name {
        Some(named) if !named.is_empty() => Json::Object(named),
        _ => json!(params),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_by_place_and_by_name() {
        let check = |given: &[&str], expected: Json| {
            let given: Vec<String> = given.iter().map(|p| p.to_string()).collect();
            assert_eq!(params(&given), expected, "{given:?}");
        };
        check(&[], json!([]));
        check(&["a", "b"], json!(["a", "b"]));
        check(&["aor=a@b", "q=0.5"], json!({"aor": "a@b", "q": "0.5"}));
        check(&["sip:a;x=y", "b=c"], json!(["sip:a;x=y", "b=c"]));
    }
}
