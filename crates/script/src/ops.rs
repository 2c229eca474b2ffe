//! The instructions of the machine.
//!
//! Two registers carry results: `acc`, the outcome of the last statement or condition (a condition leaves
//! 1, 0 or -1 for "cannot be compared"; a call its return code), and the task's `$rc`. Values that an
//! expression builds stand on the task's stack, so a call in its middle may suspend. Loops keep their
//! counters there too.

use crate::ast::{AssignOp, BinOp};

/// Index of an instruction in `Program`.
pub(crate) type Pc = u32;

macro_rules! index {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) struct $name(pub(crate) u32);
    )*};
}

index! {
    /// Into `Program::vars`.
    VarId,
    /// Into `Program::funcs`.
    FuncId,
    /// Into `Program::consts`.
    ConstId,
    /// Into `Program::regexes`.
    RegexId,
    /// Into `Program::asyncs`.
    AsyncId,
    /// Into `Program::launches`.
    LaunchId,
    /// Into `Program::parallels`.
    ParallelId,
    /// Into `Program::waits`.
    WaitId,
}

/// `==` and its like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cmp {
    Eq,
    Ne,
    Lt,
    Gt,
    Le,
    Ge,
}

/// `=~` and `!~`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Want {
    Match,
    NoMatch,
}

/// Arithmetic and bitwise operators.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Arith {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    And,
    Or,
    Xor,
    ShiftLeft,
    ShiftRight,
    Concat,
}

/// Where the right operand of `+` comes from: a number that was computed or written has no text and
/// cannot be joined to a string, a number held in a variable can.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Right {
    Variable,
    Computed,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Op {
    // Statements. Each sets `acc` and, except where the statement around it does, `$rc`.
    /// acc = rc = return code; 0 ends the script. May suspend.
    Call(FuncId),
    /// Waits for the function, then runs the resume route in place of everything that runs now.
    CallAsync(AsyncId),
    /// The report route's parameter is on the stack. acc = rc = 1 or negative.
    Launch(LaunchId),
    /// acc = rc = return code of several functions at once; not 0. May suspend.
    Parallel(ParallelId),
    /// target = top of the stack; acc = rc = 1, or -1 when the target refuses.
    Assign(VarId, AssignOp),
    AssignInt(VarId, i32),
    AssignVar(VarId, VarId),
    /// An operand did not fit: drops the expression's values down to this height, acc = -1.
    Fail(u32),
    /// acc = constant
    Acc(i32),
    /// rc = acc
    Rc,
    /// End of an `if` whose condition was false: rc = acc, acc = 1.
    IfNot,

    // Values.
    /// Asks for the values that the next instruction reads and that may have to be waited for. May suspend;
    /// run again when an answer is there.
    Await(WaitId),
    Push(ConstId),
    PushInt(i32),
    PushVar(VarId),
    /// The variable itself, read when the parameter is (2.1).
    PushLazy(VarId),
    /// acc as a number.
    PushAcc,
    /// acc of a comparison as a number; when it could not be compared, on to `Fail` (-1 in 2.1).
    PushTruth(Pc),
    /// top two = left op right, or on to `Fail`.
    Binary(Arith, Right, Pc),
    /// top = top op number, or on to `Fail`.
    BinaryInt(Arith, i32, Pc),
    /// top two = what `left op= right` makes, or on to `Fail`.
    Modify(Arith, Right, Pc),
    BitNot(Pc),
    /// Joins the top n values as text.
    Join(u32),
    Pop,
    /// Drops the top; on to `Pc` when it was the value of a failed transformation.
    PopReadable(Pc),

    // Conditions.
    CmpInt(Cmp, VarId, i32),
    CmpText(Cmp, VarId, ConstId),
    CmpVar(Cmp, VarId, VarId),
    CmpNull(Cmp, VarId),
    /// The right side is a bare word: the host decides first.
    CmpWord(Cmp, VarId, VarId),
    Match(Want, VarId, RegexId),
    /// The pattern is the value of the second variable.
    MatchVar(Want, VarId, VarId),
    /// acc = the variable is neither NULL nor 0 nor empty.
    Test(VarId),
    /// The same for the top of the stack, which is dropped.
    TestTop,
    /// acc of a call as a truth: positive is true.
    Truth,
    Not,
    Jump(Pc),
    /// To `Pc` unless acc is 1.
    JumpUnless(Pc),
    /// To `Pc` when acc is 1.
    JumpIf(Pc),

    // Loops and switch.
    /// Pushes a counter.
    Loop,
    /// Counts a round; leaves for `Pc` after the last one allowed.
    Round(Pc),
    /// Pushes the value of the list at the counter and counts, or leaves for `Pc`.
    Next(VarId, Pc),
    /// When the top of the stack equals the constant: drops it and goes to `Pc` with acc 1.
    CaseInt(i32, Pc),
    CaseText(ConstId, Pc),
    CaseNull(Pc),

    // Routes and ends.
    /// The top `args` values become its parameters, those in the mask `lazy` being variables to read
    /// later; acc = rc = what it returns.
    Route {
        route: u16,
        args: u8,
        lazy: u32,
    },
    /// The name lies below the parameters. An unknown one gives acc = -1 and leaves rc.
    RouteNamed {
        args: u8,
        lazy: u32,
    },
    /// The end of a route: returns acc.
    End,
    Return(i32),
    /// Returns the value under the top n, which become `$return(0..n)`.
    ReturnTop(u32),
    Exit,
    Drop,
    /// `assert` failed with this text.
    Assert(ConstId),
    /// A statement begins; only in programs that somebody watches run (`Env::probes`).
    Probe,
}

const _: () = assert!(size_of::<Op>() <= 16);

impl Cmp {
    pub(crate) fn of(op: BinOp) -> Option<Cmp> {
        Some(match op {
            BinOp::Eq => Cmp::Eq,
            BinOp::Ne => Cmp::Ne,
            BinOp::Lt => Cmp::Lt,
            BinOp::Gt => Cmp::Gt,
            BinOp::Le => Cmp::Le,
            BinOp::Ge => Cmp::Ge,
            _ => return None,
        })
    }

    pub(crate) fn sign(self) -> &'static str {
        match self {
            Cmp::Eq => "==",
            Cmp::Ne => "!=",
            Cmp::Lt => "<",
            Cmp::Gt => ">",
            Cmp::Le => "<=",
            Cmp::Ge => ">=",
        }
    }
}

impl Want {
    pub(crate) fn sign(self) -> &'static str {
        match self {
            Want::Match => "=~",
            Want::NoMatch => "!~",
        }
    }
}

impl Arith {
    pub(crate) fn of(op: BinOp) -> Option<Arith> {
        Some(match op {
            BinOp::Add => Arith::Add,
            BinOp::Sub => Arith::Sub,
            BinOp::Mul => Arith::Mul,
            BinOp::Div => Arith::Div,
            BinOp::Mod => Arith::Mod,
            BinOp::BitAnd => Arith::And,
            BinOp::BitOr => Arith::Or,
            BinOp::BitXor => Arith::Xor,
            BinOp::ShiftLeft => Arith::ShiftLeft,
            BinOp::ShiftRight => Arith::ShiftRight,
            BinOp::Concat => Arith::Concat,
            _ => return None,
        })
    }

    /// The operator inside `+=` and its like; `None` for plain assignments.
    pub(crate) fn of_assign(op: AssignOp) -> Option<Arith> {
        Some(match op {
            AssignOp::Set | AssignOp::SetOver => return None,
            AssignOp::Add => Arith::Add,
            AssignOp::Sub => Arith::Sub,
            AssignOp::Mul => Arith::Mul,
            AssignOp::Div => Arith::Div,
            AssignOp::Mod => Arith::Mod,
            AssignOp::And => Arith::And,
            AssignOp::Or => Arith::Or,
            AssignOp::Xor => Arith::Xor,
            AssignOp::ShiftLeft => Arith::ShiftLeft,
            AssignOp::ShiftRight => Arith::ShiftRight,
            AssignOp::Concat => Arith::Concat,
        })
    }

    pub(crate) fn sign(self) -> &'static str {
        match self {
            Arith::Add => "+",
            Arith::Sub => "-",
            Arith::Mul => "*",
            Arith::Div => "/",
            Arith::Mod => "%",
            Arith::And => "&",
            Arith::Or => "|",
            Arith::Xor => "^",
            Arith::ShiftLeft => "<<",
            Arith::ShiftRight => ">>",
            Arith::Concat => ".",
        }
    }
}
