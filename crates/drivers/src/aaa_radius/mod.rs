//! aaa_radius: questions to RADIUS servers from scripts, and the protocol `radius:` for modules that account
//! and authenticate.

mod client;
mod config;
mod dictionary;
mod packet;
mod sets;

use client::{Client, Group};
use config::Config;
use host::aaa::{Aaa, AaaKind, AaaProtocol, AaaServers};
use host::load::LoadError;
use host::registrar::Stage;
use host::{Call, Outcome, Registrar, Routes};
use sets::{SetArg, Written};
use std::path::Path;
use std::sync::Arc;

const DENIED: i32 = -2;
const ERROR: i32 = -1;

#[derive(Default)]
pub struct Radius {
    config_file: Option<String>,
    sets: Vec<Written>,
    fetch_all: bool,
    client: Option<Arc<Client>>,
    aaa: Option<Aaa>,
}

pub fn register(m: &mut Registrar<Radius>) {
    m.stage(Stage::Driver);
    m.param_text("radius_config", |m, path| {
        m.config_file = Some(path.to_string());
        Ok(())
    });
    m.param_text("sets", |m, text| {
        m.sets.push(Written::parse(text)?);
        Ok(())
    });
    m.param_int("fetch_all_values", |m, on| {
        m.fetch_all = on != 0;
        Ok(())
    });
    m.ignored(&["syslog_name"], "there is no library with a log of its own");
    m.init_with_files(|m, loader| {
        loader.aaa_protocol("radius", Arc::new(Protocol));
        if let Some(path) = &m.config_file {
            let client = Arc::new(open(path)?);
            m.aaa = Some(Aaa::new(&format!("radius:{path}"), Arc::new(Group(client.clone()))));
            m.client = Some(client);
        }
        Ok(())
    });
    m.function("radius_send_auth", Routes::ALL, send_auth);
    m.function("radius_send_acct", Routes::ALL, send_acct);
}

fn open(path: &str) -> Result<Client, LoadError> {
    Client::new(Config::load(Path::new(path.trim()))?)
}

struct Protocol;

impl AaaProtocol for Protocol {
    fn open(&self, rest: &str) -> Result<Arc<dyn AaaServers>, String> {
        Ok(Arc::new(Group(Arc::new(open(rest)?))))
    }
}

/// radius_send_auth(input set, output set): 1 accepted, -2 rejected, -1 on errors.
fn send_auth(call: &mut Call<Radius>, input: SetArg, output: SetArg) -> Outcome {
    let Some(aaa) = call.module.aaa.clone() else { return Outcome::Done(ERROR) };
    let all = call.module.fetch_all;
    let request = input.0.request(call.ctx, AaaKind::Auth);
    aaa.suspend(call.ctx, "radius_send_auth", request, move |ctx, answer| match answer {
        Ok(answer) => {
            output.0.write(ctx, &answer, all);
            answer.sip_avps(ctx);
            if answer.accepted { 1 } else { DENIED }
        }
        Err(error) => failed(ctx, "radius_send_auth", &error),
    })
}

/// radius_send_acct(input set): 1 when it was acknowledged.
fn send_acct(call: &mut Call<Radius>, input: SetArg) -> Outcome {
    let Some(aaa) = call.module.aaa.clone() else { return Outcome::Done(ERROR) };
    let request = input.0.request(call.ctx, AaaKind::Acct);
    aaa.suspend(call.ctx, "radius_send_acct", request, |ctx, answer| match answer {
        Ok(_) => 1,
        Err(error) => failed(ctx, "radius_send_acct", &error),
    })
}

/// A server that is away was named when that began; what is wrong with this request is said here.
fn failed(ctx: &mut host::Ctx, what: &str, error: &host::aaa::AaaError) -> i32 {
    if let host::aaa::AaaError::BadRequest(_) = error {
        host::complain!(ctx, "aaa_radius", "{what}: {error}");
    }
    ERROR
}

#[cfg(test)]
mod tests;
