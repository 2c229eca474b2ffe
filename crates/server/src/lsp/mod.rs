//! `fermata lsp`: a language server on standard input and output, for editors (Language Server Protocol 3.17).
//!
//! ```text
//!  editor ── didOpen, didChange ──► texts ── check ──► publishDiagnostics ──► editor
//!         ── hover, completion, definition, references, rename, formatting, documentSymbol ──► an answer each
//! ```
//! Messages that wait are taken first, so that a text is checked once after many keys.

mod check;
mod know;
mod routes;
mod text;
mod wire;

use check::Checked;
use serde_json::{Value as Json, json};
use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;
use text::Text;
use wire::{Failure, Incoming};

/// After the last key, before the text is checked.
const REST: Duration = Duration::from_millis(150);

/// Runs until the editor says so, or ends its side.
pub fn run() -> ExitCode {
    // What modules log while they are checked is not for the editor, whose messages have the same way.
    host::log::set_level(-3);
    let (send, incoming) = mpsc::channel();
    std::thread::spawn(move || wire::read_all(std::io::stdin().lock(), |message| send.send(message).is_ok()));
    let mut server = Server::default();
    loop {
        let message = match server.stale.is_empty() {
            true => incoming.recv().ok(),
            false => match incoming.recv_timeout(REST) {
                Ok(message) => Some(message),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    server.check_stale();
                    continue;
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => None,
            },
        };
        let Some(message) = message else { return ExitCode::FAILURE };
        if message.method == "exit" {
            return if server.ending { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        server.take(message);
    }
}

/// What the editor told so far.
#[derive(Default)]
struct Server {
    /// Open texts, by URI.
    texts: HashMap<String, Text>,
    /// Those that changed since they were checked.
    stale: Vec<String>,
    /// The last check of each open text.
    checked: HashMap<String, Checked>,
    ending: bool,
}

impl Server {
    fn take(&mut self, message: Incoming) {
        let Incoming { id, method, params } = message;
        match id {
            None => self.hear(&method, &params),
            Some(id) => {
                let answer = self.answer(&method, &params);
                wire::write(&match answer {
                    Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
                    Err(Failure(code, text)) => {
                        json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": text}})
                    }
                });
            }
        }
    }

    fn hear(&mut self, method: &str, params: &Json) {
        let document = &params["textDocument"];
        let uri = document["uri"].as_str().unwrap_or_default().to_owned();
        match method {
            "textDocument/didOpen" => {
                self.texts.insert(uri.clone(), Text::new(document["text"].as_str().unwrap_or_default()));
                self.touch(uri);
            }
            "textDocument/didChange" => {
                // Whole texts: that is what was offered.
                let last = params["contentChanges"].as_array().and_then(|list| list.last());
                if let Some(new) = last.and_then(|change| change["text"].as_str()) {
                    self.texts.insert(uri.clone(), Text::new(new));
                    self.touch(uri);
                }
            }
            "textDocument/didSave" => self.touch(uri),
            "textDocument/didClose" => {
                self.texts.remove(&uri);
                self.checked.remove(&uri);
                self.stale.retain(|stale| *stale != uri);
                publish(&uri, &[]);
            }
            _ => {}
        }
    }

    fn touch(&mut self, uri: String) {
        if !self.stale.contains(&uri) {
            self.stale.push(uri);
        }
    }

    fn check_stale(&mut self) {
        for uri in std::mem::take(&mut self.stale) {
            let checked = check::check(&uri, &self.texts);
            let before = self.checked.get(&uri).map(|c| c.problems.keys().cloned().collect::<Vec<_>>());
            // Included files that have no problem any more.
            for gone in before.into_iter().flatten().filter(|file| !checked.problems.contains_key(file)) {
                publish(&gone, &[]);
            }
            for (file, problems) in &checked.problems {
                publish(file, problems);
            }
            self.checked.insert(uri, checked);
        }
    }

    /// The check of a text as it is now.
    fn fresh(&mut self, uri: &str) -> Result<&Checked, Failure> {
        if self.stale.iter().any(|stale| stale == uri) || !self.checked.contains_key(uri) {
            self.check_stale();
            if !self.checked.contains_key(uri) {
                self.checked.insert(uri.to_owned(), check::check(uri, &self.texts));
            }
        }
        self.checked.get(uri).ok_or_else(|| Failure::params("no such document"))
    }

    fn answer(&mut self, method: &str, params: &Json) -> Result<Json, Failure> {
        match method {
            "initialize" => return Ok(abilities()),
            "shutdown" => {
                self.ending = true;
                return Ok(Json::Null);
            }
            _ => {}
        }
        let uri = params["textDocument"]["uri"].as_str().unwrap_or_default().to_owned();
        let Some(text) = self.texts.get(&uri).cloned() else {
            return Err(match method.starts_with("textDocument/") {
                true => Failure::params("the document is not open"),
                false => Failure::unknown(method),
            });
        };
        let at = text.offset(&params["position"]);
        match method {
            "textDocument/hover" => Ok(know::hover(&text, at)),
            "textDocument/completion" => {
                let routes = self.fresh(&uri)?.route_names();
                Ok(know::complete(&text, at, &routes))
            }
            "textDocument/formatting" => format(&text, &uri),
            "textDocument/definition" => Ok(routes::definition(self.fresh(&uri)?, &uri, at)),
            "textDocument/references" => Ok(routes::references(self.fresh(&uri)?, &uri, at)),
            "textDocument/prepareRename" => routes::may_rename(self.fresh(&uri)?, &uri, at),
            "textDocument/rename" => {
                let name = params["newName"].as_str().unwrap_or_default().to_owned();
                routes::rename(self.fresh(&uri)?, &uri, at, &name)
            }
            "textDocument/documentSymbol" => Ok(routes::symbols(self.fresh(&uri)?, &uri)),
            _ => Err(Failure::unknown(method)),
        }
    }
}

fn abilities() -> Json {
    json!({
        "serverInfo": {"name": "fermata", "version": env!("CARGO_PKG_VERSION")},
        "capabilities": {
            "textDocumentSync": {"openClose": true, "change": 1, "save": true},
            "hoverProvider": true,
            "completionProvider": {"triggerCharacters": ["$", "(", "\"", "{", "."]},
            "definitionProvider": true,
            "referencesProvider": true,
            "renameProvider": {"prepareProvider": true},
            "documentFormattingProvider": true,
            "documentSymbolProvider": true,
        },
    })
}

fn publish(uri: &str, problems: &[Json]) {
    let params = json!({"uri": uri, "diagnostics": problems});
    wire::write(&json!({"jsonrpc": "2.0", "method": "textDocument/publishDiagnostics", "params": params}));
}

/// One edit for the whole text; none when it is laid out already, or has errors.
fn format(text: &Text, uri: &str) -> Result<Json, Failure> {
    match script::format_source(text.as_str(), uri) {
        Ok(new) if new == text.as_str() => Ok(json!([])),
        Ok(new) => Ok(json!([{"range": text.range(0, text.as_str().len()), "newText": new}])),
        Err(_) => Err(Failure(-32803, "the script has errors and was not touched".into())),
    }
}
