//! The steps of a scenario, played.

use super::message::{self, Written, filled, first_line, headers};
use super::pattern::Pattern;
use super::plan::Scenario;
use super::stage::Stage;
use super::steps::{Step, What};
use super::yaml::Problem;
use capture::story::What as Seen;
use host::db::Query;
use host::mi::{MiAnswer, MiParams};
use std::net::SocketAddr;
use std::rc::Rc;

/// A scenario that did not go as it should.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// Of the step, in the file of scenarios.
    pub line: usize,
    /// The step, in short; empty: the end of the scenario.
    pub step: String,
    pub problems: Vec<String>,
}

/// After the last step, what is still on its way arrives.
const REST: u64 = 100;

pub struct Play<'a> {
    stage: &'a mut Stage,
    /// What `save` kept.
    kept: Vec<(String, String)>,
    /// Log lines before this entry belong to steps before.
    logs_from: usize,
}

impl Play<'_> {
    pub fn run(stage: &mut Stage, scenario: &Scenario) -> Result<(), Failure> {
        let mut play = Play { stage, kept: Vec::new(), logs_from: 0 };
        for step in &scenario.steps {
            let failed = |problems| Failure { line: step.line, step: step.text.clone(), problems };
            match play.step(step) {
                Ok(problems) if problems.is_empty() => {}
                Ok(problems) => return Err(failed(problems)),
                Err(problem) => return Err(failed(vec![problem.text])),
            }
            play.stage.scene.note(Seen::Step { line: step.line, text: step.text.clone() });
        }
        let end = |problems| Err(Failure { line: scenario.line, step: String::new(), problems });
        if let Err(problem) = play.stage.pass(REST) {
            return end(vec![problem]);
        }
        let left: Vec<String> = play
            .stage
            .parties
            .iter()
            .flat_map(|party| {
                let name = &party.spec.name;
                party.inbox.iter().map(move |msg| {
                    format!("{name} also received {}, which no step expects", first_line(msg.buf()))
                })
            })
            .collect();
        if left.is_empty() { Ok(()) } else { end(left) }
    }

    /// What is not as it should be; empty when all is well.
    fn step(&mut self, step: &Step) -> Result<Vec<String>, Problem> {
        let line = step.line;
        let wrong = |text: String| Problem::new(line, text);
        match &step.what {
            What::Wait(ms) => {
                self.stage.pass(*ms).map_err(wrong)?;
                Ok(Vec::new())
            }
            What::Send { party, message, to, raw } => {
                let at = self.party(party);
                let to = to.as_ref().map(|to| self.address(&self.fill(to, at, line)?, line)).transpose()?;
                let text = self.fill(message, at, line)?;
                let now = self.stage.now();
                let party = &mut self.stage.parties[at];
                let wishes = if *raw {
                    Ok(party.send_raw(text.replace("\r\n", "\n").replace('\n', "\r\n").into(), to))
                } else {
                    party.send(now, Written::parse(&text), to)
                };
                let wishes = wishes.map_err(wrong)?;
                self.stage.grant(at, wishes);
                Ok(Vec::new())
            }
            What::Authenticate { party } => {
                let (at, now) = (self.party(party), self.stage.now());
                let wishes = self.stage.parties[at].authenticate(now).map_err(wrong)?;
                self.stage.grant(at, wishes);
                Ok(Vec::new())
            }
            What::Receive { party, message, within, save } => {
                let at = self.party(party);
                let came = |stage: &mut Stage| stage.parties[at].inbox.pop_front();
                let Some(msg) = self.stage.until(*within, came).map_err(wrong)? else {
                    return Ok(vec![format!(
                        "{party} received nothing within {} s",
                        *within as f64 / 1000.0
                    )]);
                };
                let fill = |text: &str| self.fill(text, at, line);
                let found = message::differences(message, &msg, line, &fill)?;
                if found.is_empty() {
                    return self.keep(&msg, save);
                }
                Ok(found)
            }
            What::Silence { party, lasts } => {
                let at = self.party(party);
                let came = |stage: &mut Stage| stage.parties[at].inbox.pop_front();
                let came = self.stage.until(*lasts, came).map_err(wrong)?;
                Ok(came
                    .map(|msg| format!("{party} received {}", first_line(msg.buf())))
                    .into_iter()
                    .collect())
            }
            What::Log { pattern, within } => self.log(pattern, *within, line),
            What::NoLog(pattern) => {
                let record = self.stage.scene.record.borrow();
                let said = record.logs(0).find(|text| pattern.matches(text));
                Ok(said.map(|text| format!("the log says: {text}")).into_iter().collect())
            }
            What::Variables(wanted) => self.variables(wanted),
            What::Database { query, gives } => self.database(query, gives, line),
            What::Command { name, params, gives, fails } => {
                let params = params.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
                self.command(name, params, gives.as_ref(), *fails, line)
            }
        }
    }

    fn party(&self, name: &str) -> usize {
        self.stage.parties.iter().position(|party| party.spec.name == name).unwrap_or(0)
    }

    /// Names between braces: parties' addresses, what was saved, `server`, `sdp`.
    fn fill(&self, text: &str, own: usize, line: usize) -> Result<String, Problem> {
        let known = |name: &str| {
            let party = self.stage.parties.iter().find(|party| party.spec.name == name);
            let saved =
                self.kept.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.clone());
            let own = &self.stage.parties.get(own)?;
            match name {
                "server" => Some(own.server.to_string()),
                "sdp" => Some(sdp(own.spec.address)),
                _ => saved.or_else(|| party.map(|party| party.spec.address.to_string())),
            }
        };
        filled(text, line, &known)
    }

    fn address(&self, text: &str, line: usize) -> Result<SocketAddr, Problem> {
        let party = self.stage.parties.iter().find(|party| party.spec.name == text);
        let address = party.map(|party| party.spec.address).or_else(|| text.parse().ok());
        address.ok_or_else(|| {
            Problem::new(line, format!("`to: {text}` is neither a party nor an address with its port"))
        })
    }

    fn keep(
        &mut self,
        msg: &Rc<sip::Message>,
        save: &[(String, String, Pattern)],
    ) -> Result<Vec<String>, Problem> {
        for (name, header, pattern) in save {
            let Pattern::Regex(regex) = pattern else { continue };
            let found = headers(msg, header).iter().find_map(|value| {
                let groups = regex.captures(value)?;
                Some(groups.get(1).or(groups.get(0))?.as_str().to_string())
            });
            match found {
                Some(value) => self.kept.push((name.clone(), value)),
                None => return Ok(vec![format!("save {name}: no {header} fits {pattern}")]),
            }
        }
        Ok(Vec::new())
    }

    fn log(&mut self, pattern: &Pattern, within: u64, line: usize) -> Result<Vec<String>, Problem> {
        let from = self.logs_from;
        let said = |stage: &mut Stage| {
            let record = stage.scene.record.borrow();
            record.logs(from).any(|text| pattern.matches(text)).then_some(())
        };
        let found = self.stage.until(within, said).map_err(|text| Problem::new(line, text))?;
        if found.is_some() {
            self.logs_from = self.stage.scene.record.borrow().entries.len();
            return Ok(Vec::new());
        }
        Ok(vec![format!("no line of the log fits {pattern}")])
    }

    fn variables(&self, wanted: &[(String, Pattern)]) -> Result<Vec<String>, Problem> {
        let scene = &self.stage.scene;
        let values = scene.values.borrow();
        let value = |name: &String| {
            let at = scene.watched.iter().position(|known| known == name)?;
            values.get(at).cloned()
        };
        let problems = wanted.iter().filter_map(|(name, pattern)| match value(name) {
            None => Some(format!("no script has ended yet: {name} has no value")),
            Some(value) if pattern.matches(&value) => None,
            Some(value) => Some(format!("{name} is {value}, expected {pattern}")),
        });
        Ok(problems.collect())
    }

    fn database(&mut self, query: &str, gives: &[Vec<Pattern>], line: usize) -> Result<Vec<String>, Problem> {
        // Writes that are under way arrive.
        self.stage.pass(REST).map_err(|text| Problem::new(line, text))?;
        let rows = self.stage.scene.memory.run(&Query::raw(query.to_string()));
        let rows = rows.map_err(|e| Problem::new(line, e.to_string()))?;
        let text =
            |value: &host::db::DbValue| if value.is_null() { "NULL".to_string() } else { value.string() };
        let rows: Vec<Vec<String>> = rows.iter().map(|row| row.cells.iter().map(text).collect()).collect();
        let same = rows.len() == gives.len()
            && rows.iter().zip(gives).all(|(row, wanted)| {
                row.len() == wanted.len() && row.iter().zip(wanted).all(|(cell, wanted)| wanted.matches(cell))
            });
        if same {
            return Ok(Vec::new());
        }
        let shown: Vec<String> = rows.iter().map(|row| format!("[{}]", row.join(", "))).collect();
        let wanted =
            gives.iter().map(|row| row.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
        let wanted: Vec<String> = wanted.map(|row| format!("[{row}]")).collect();
        Ok(vec![format!("the database gives {}, expected {}", list(&shown), list(&wanted))])
    }

    fn command(
        &mut self,
        name: &str,
        params: serde_json::Map<String, serde_json::Value>,
        gives: Option<&Pattern>,
        fails: bool,
        line: usize,
    ) -> Result<Vec<String>, Problem> {
        let params = if params.is_empty() { None } else { Some(serde_json::Value::Object(params)) };
        let params = MiParams::from_json(params).map_err(|e| Problem::new(line, e.message))?;
        let started = self.stage.on_worker(|ctx| {
            let command = ctx.shared().command(name)?.clone();
            let (answer, later) = MiAnswer::channel();
            Some(match &command.late {
                Some(late) => {
                    late(ctx, &params, answer);
                    (None, later)
                }
                None => (Some((command.run)(ctx, &params)), later),
            })
        });
        let (now, mut later) = started
            .ok_or_else(|| Problem::new(line, format!("no module of the script has a command `{name}`")))?;
        let answer = match now {
            Some(answer) => Some(answer),
            None => {
                let there = |_: &mut Stage| later.try_recv().ok().flatten();
                self.stage.until(60_000, there).map_err(|text| Problem::new(line, text))?
            }
        };
        Ok(match answer {
            None => vec![format!("{name} gave no answer within 60 s")],
            Some(Err(e)) if fails => mismatch(&e.message, gives),
            Some(Err(e)) => vec![format!("{name} failed: {} {}", e.message, e.data.unwrap_or_default())],
            Some(Ok(answer)) if fails => vec![format!("{name} did not fail: {answer}")],
            Some(Ok(answer)) => mismatch(&answer.to_string(), gives),
        })
    }
}

fn mismatch(answer: &str, gives: Option<&Pattern>) -> Vec<String> {
    let wrong = gives.filter(|pattern| !pattern.matches(answer));
    wrong.map(|pattern| format!("the answer is {answer}, expected {pattern}")).into_iter().collect()
}

fn list(rows: &[String]) -> String {
    if rows.is_empty() { "no rows".to_string() } else { rows.join(" ") }
}

/// A session of one audio stream.
fn sdp(address: SocketAddr) -> String {
    let (ip, kind) = (address.ip(), if address.is_ipv4() { "IP4" } else { "IP6" });
    format!(
        "v=0\no=- 1 1 IN {kind} {ip}\ns=-\nc=IN {kind} {ip}\nt=0 0\nm=audio 40000 RTP/AVP 0 8\na=rtpmap:0 PCMU/8000\na=rtpmap:8 PCMA/8000"
    )
}
