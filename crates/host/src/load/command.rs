//! Management commands as modules declare them.

use crate::call::Call;
use crate::ctx::Ctx;
use crate::mi::{MiAnswer, MiCommand, MiError, MiParams, MiResult, MiScope};
use std::sync::Arc;

/// What is said of a command.
#[derive(Clone, Copy, Debug)]
pub struct CommandWords {
    /// Its name, that of 4.x first, then those of before: "usrloc:dump ul_dump".
    pub names: &'static str,
    pub help: &'static str,
    /// Its parameters; `None`: not declared, so they are not checked.
    pub takes: Option<&'static str>,
}

impl CommandWords {
    /// Declares the parameters, in order: `"table_name aor [contact]"`. Those in brackets may be left out, `name...`
    /// takes any number, an empty text is none.
    pub fn takes(&mut self, params: &'static str) {
        self.takes = Some(params);
    }

    /// The name of 4.x, and those of before.
    fn split(&self) -> (&'static str, Vec<&'static str>) {
        let mut words = self.names.split(' ');
        (words.next().unwrap_or_default(), words.collect())
    }

    /// The help, and how the command is called.
    pub fn usage_line(&self) -> String {
        let (name, before) = self.split();
        match self.takes {
            None => self.help.to_string(),
            Some(takes) => {
                format!("{}: {} {takes}", self.help, before.first().unwrap_or(&name)).trim_end().to_string()
            }
        }
    }
}

pub(super) type RunNow<M> = fn(&mut Call<'_, M>, &MiParams) -> MiResult;
pub(super) type RunLate<M> = fn(&mut Call<'_, M>, &MiParams, MiAnswer);

pub(super) enum Run<M> {
    Now(MiScope, RunNow<M>),
    Late(RunLate<M>),
}

pub(super) struct CommandDef<M> {
    pub(super) words: CommandWords,
    pub(super) run: Run<M>,
}

impl<M: Send + Sync + 'static> CommandDef<M> {
    pub(super) fn new(names: &'static str, help: &'static str, run: Run<M>) -> CommandDef<M> {
        CommandDef { words: CommandWords { names, help, takes: None }, run }
    }

    /// The command of a server whose module has this state.
    pub(super) fn bind(&self, module: &'static str, state: &Arc<M>) -> MiCommand {
        let (name, aliases) = self.words.split();
        let state = state.clone();
        let (scope, run, late): (_, crate::mi::Handler, Option<crate::mi::LateHandler>) = match self.run {
            Run::Now(scope, run) => {
                let run =
                    move |ctx: &mut Ctx, params: &MiParams| run(&mut Call { ctx, module: &state }, params);
                (scope, Arc::new(run), None)
            }
            Run::Late(run) => {
                let late = move |ctx: &mut Ctx, params: &MiParams, answer| {
                    run(&mut Call { ctx, module: &state }, params, answer)
                };
                let now = |_: &mut Ctx, _: &MiParams| Err(MiError::new(-32603, "this command answers later"));
                (MiScope::One, Arc::new(now), Some(Arc::new(late)))
            }
        };
        MiCommand { name, aliases, module, help: self.words.help, takes: self.words.takes, scope, run, late }
    }
}
