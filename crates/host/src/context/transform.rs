//! One prepared transformation `{class.name,params}`.

use crate::context::ctx::Ctx;
use crate::context::var::Answer;
use script::Value;

/// One prepared transformation.
pub struct Tran(Run);

enum Run {
    Pure(fn(Value) -> Value),
    With(Box<dyn Fn(&mut Ctx, Value) -> Value + Send + Sync>),
    Waiting(Box<dyn Fn(&mut Ctx, Value) -> Answer + Send + Sync>),
}

impl Tran {
    /// A transformation with parameters, or one that looks at the message.
    pub fn new(run: impl Fn(&mut Ctx, Value) -> Value + Send + Sync + 'static) -> Tran {
        Tran(Run::With(Box::new(run)))
    }

    /// A function of the value alone.
    pub fn pure(run: fn(Value) -> Value) -> Tran {
        Tran(Run::Pure(run))
    }

    /// One that may have to wait for its result.
    pub fn waiting(run: impl Fn(&mut Ctx, Value) -> Answer + Send + Sync + 'static) -> Tran {
        Tran(Run::Waiting(Box::new(run)))
    }

    pub(crate) fn may_wait(&self) -> bool {
        matches!(self.0, Run::Waiting(_))
    }

    /// The result, or the operation that brings it.
    pub(crate) fn ask(&self, ctx: &mut Ctx, value: Value) -> Answer {
        match &self.0 {
            Run::Waiting(run) if !value.is_null() => run(ctx, as_plain(value)),
            _ => Answer::Now(self.apply(ctx, value)),
        }
    }

    /// The result; NULL when it would have to be waited for.
    pub fn apply(&self, ctx: &mut Ctx, value: Value) -> Value {
        if value.is_null() {
            return Value::Null;
        }
        if let Value::Pieced(text, _) = &value {
            let made = self.run(ctx, Value::Str(text.clone()));
            return value.hand_down(made);
        }
        self.run(ctx, value)
    }

    fn run(&self, ctx: &mut Ctx, value: Value) -> Value {
        match &self.0 {
            Run::Pure(run) => run(value),
            Run::With(run) => run(ctx, value),
            Run::Waiting(run) => match run(ctx, value) {
                Answer::Now(value) => value,
                Answer::Later(_) => Value::Null,
            },
        }
    }
}

/// Transformations need not know who wrote a text.
fn as_plain(value: Value) -> Value {
    match value {
        Value::Pieced(text, _) => Value::Str(text),
        value => value,
    }
}
