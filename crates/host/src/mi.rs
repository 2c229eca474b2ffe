//! Management commands: JSON-RPC names, parameters and results, independent of how they arrive.

use crate::ctx::Ctx;
use serde_json::Value as Json;

/// An error as JSON-RPC carries it.
#[derive(Clone, Debug, PartialEq)]
pub struct MiError {
    pub code: i64,
    pub message: String,
}

impl MiError {
    pub fn new(code: i64, message: impl Into<String>) -> MiError {
        MiError { code, message: message.into() }
    }
    /// -32602, a parameter is missing or wrong.
    pub fn params(message: impl Into<String>) -> MiError {
        MiError::new(-32602, message)
    }
}

pub type MiResult = Result<Json, MiError>;

/// Parameters, by name or by position.
#[derive(Clone, Debug, Default)]
pub struct MiParams {
    pub named: serde_json::Map<String, Json>,
    pub positional: Vec<Json>,
}

impl MiParams {
    /// From a JSON-RPC `params` value.
    pub fn from_json(params: Option<Json>) -> Result<MiParams, MiError> {
        match params {
            None | Some(Json::Null) => Ok(MiParams::default()),
            Some(Json::Object(named)) => Ok(MiParams { named, positional: Vec::new() }),
            Some(Json::Array(positional)) => Ok(MiParams { named: Default::default(), positional }),
            Some(_) => Err(MiError::params("params must be an object or an array")),
        }
    }

    /// By name, else by position (from 0).
    pub fn find(&self, name: &str, position: usize) -> Option<&Json> {
        self.named.get(name).or_else(|| self.positional.get(position))
    }

    /// As text (numbers too); `None` when absent.
    pub fn text(&self, name: &str, position: usize) -> Option<String> {
        self.find(name, position).map(|v| match v {
            Json::String(s) => s.clone(),
            other => other.to_string(),
        })
    }

    pub fn need(&self, name: &str, position: usize) -> Result<String, MiError> {
        self.text(name, position).ok_or_else(|| MiError::params(format!("missing parameter: {name}")))
    }

    pub fn int(&self, name: &str, position: usize) -> Result<Option<i64>, MiError> {
        match self.find(name, position) {
            None => Ok(None),
            Some(Json::Number(n)) => Ok(n.as_i64()),
            Some(Json::String(s)) => {
                s.trim().parse().map(Some).map_err(|_| MiError::params(format!("{name} must be a number")))
            }
            Some(_) => Err(MiError::params(format!("{name} must be a number"))),
        }
    }
}

/// Where a command runs.
#[derive(Clone, Copy)]
pub enum MiScope {
    /// On one worker: it reads or writes what workers share.
    One,
    /// On every worker; the function puts the answers together.
    Each(fn(Vec<Json>) -> Json),
}

type Handler = std::sync::Arc<dyn Fn(&mut Ctx, &MiParams) -> MiResult + Send + Sync>;

/// One management command.
#[derive(Clone)]
pub struct MiCommand {
    pub name: &'static str,
    pub module: &'static str,
    pub help: &'static str,
    pub scope: MiScope,
    pub run: Handler,
}
