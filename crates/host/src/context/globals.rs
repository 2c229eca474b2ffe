//! Core parameters as the rest of the server reads them, and the flags that scripts name.

use crate::context::sockets::Listen;
use ahash::AHashMap;
use bytes::Bytes;
use script::ast::GlobalValue;
use sip::Transport;

/// Flag names by bit.
pub type FlagNames = Vec<Bytes>;

/// A name of this server besides its sockets (`alias=`).
#[derive(Clone, Debug, PartialEq)]
pub struct Alias {
    pub transport: Option<Transport>,
    pub host: String,
    /// 0: any
    pub port: u16,
    /// `accept_subdomain`: names that end with this one too.
    pub subdomains: bool,
}

/// Core parameters, read and checked.
#[derive(Clone, Debug, Default)]
pub struct Globals {
    pub sockets: Vec<Listen>,
    pub aliases: Vec<Alias>,
    /// All others by name; the last one written wins.
    pub values: AHashMap<String, GlobalValue>,
}

impl Globals {
    pub fn int(&self, names: &[&str]) -> Option<i64> {
        names.iter().find_map(|n| match self.values.get(*n)? {
            GlobalValue::Int(n) => Some(*n),
            GlobalValue::Bool(b) => Some(i64::from(*b)),
            GlobalValue::Text(t) | GlobalValue::Word(t) => std::str::from_utf8(t).ok()?.trim().parse().ok(),
        })
    }

    pub fn text(&self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|n| match self.values.get(*n)? {
            GlobalValue::Text(t) | GlobalValue::Word(t) => Some(String::from_utf8_lossy(t).into_owned()),
            GlobalValue::Int(n) => Some(n.to_string()),
            GlobalValue::Bool(b) => Some(if *b { "yes" } else { "no" }.to_string()),
        })
    }

    pub fn flag(&self, names: &[&str]) -> Option<bool> {
        self.int(names).map(|n| n != 0)
    }
}
