//! The syntax tree. One tree for both dialects; what only one of them writes becomes the same node.

use crate::diagnostic::Loc;
use bytes::Bytes;

/// A whole configuration, in file order per list.
#[derive(Clone, Debug, Default)]
pub struct Config {
    pub globals: Vec<Global>,
    pub modules: Vec<LoadModule>,
    pub params: Vec<ModParam>,
    pub mpath: Vec<(Bytes, Loc)>,
    pub routes: Vec<Route>,
    pub dialect: Dialect,
}

/// Detected from globals and statements, or forced by the caller; a file may use words of both.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Dialect {
    V21,
    #[default]
    V4,
}

/// `name = value` outside routes. Sockets (`listen=`, `socket=`) keep their raw text in `Word`.
#[derive(Clone, Debug)]
pub struct Global {
    pub name: Bytes,
    pub value: GlobalValue,
    pub loc: Loc,
}

#[derive(Clone, Debug, PartialEq)]
pub enum GlobalValue {
    Int(i64),
    Text(Bytes),
    /// yes/no/on/off/true/false
    Bool(bool),
    /// anything unquoted: sockets, lists of addresses, names
    Word(Bytes),
}

#[derive(Clone, Debug)]
pub struct LoadModule {
    /// "tm" (path and .so removed)
    pub name: Bytes,
    pub loc: Loc,
}

/// One per module when several are named ("auth_db|uri").
#[derive(Clone, Debug)]
pub struct ModParam {
    pub module: Bytes,
    pub name: Bytes,
    pub value: ParamValue,
    pub loc: Loc,
    pub value_loc: Loc,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ParamValue {
    Int(i64),
    Text(Bytes),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum RouteKind {
    Request,
    Branch,
    Failure,
    OnReply,
    Local,
    Error,
    Startup,
    Timer,
    Event,
}

impl RouteKind {
    /// One bit, for sets of kinds.
    pub fn bit(self) -> u16 {
        1 << self as u8
    }
}

#[derive(Clone, Debug)]
pub struct Route {
    pub kind: RouteKind,
    /// `None`: the main request route, or the global onreply_route / failure... without name.
    pub name: Option<Bytes>,
    /// timer_route[name, seconds]
    pub interval: Option<u32>,
    /// event_route[name, sync|async]
    pub mode: EventMode,
    pub body: Vec<Stmt>,
    pub loc: Loc,
}

/// How an event_route runs against the statement that raised the event.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EventMode {
    /// Not written: the default of the dialect (2.1 in place, later beside)
    #[default]
    Unset,
    Sync,
    Async,
}

#[derive(Clone, Debug)]
pub struct Stmt {
    pub kind: StmtKind,
    pub loc: Loc,
}

#[derive(Clone, Debug)]
pub enum StmtKind {
    Expr(Expr),
    Assign {
        target: VarSpec,
        op: AssignOp,
        value: Expr,
    },
    If {
        test: Expr,
        then: Vec<Stmt>,
        otherwise: Option<Vec<Stmt>>,
    },
    While {
        test: Expr,
        body: Vec<Stmt>,
    },
    For {
        var: VarSpec,
        list: VarSpec,
        body: Vec<Stmt>,
    },
    Switch {
        on: Expr,
        arms: Vec<Arm>,
        default: Option<Vec<Stmt>>,
    },
    Break,
    Continue,
    /// `return`, `return(1)`, `return(1, $x, ...)`
    Return(Vec<Expr>),
    Exit,
    Drop,
    Async {
        call: Call,
        resume: RouteRef,
        timeout: Option<u32>,
    },
    Launch {
        call: Call,
        report: Option<RouteRef>,
        param: Option<Arg>,
    },
    /// `parallel [any] [(seconds)] { f(); $x = g(); }`: the functions run at the same time. Fermata's
    /// own.
    Parallel {
        until: Until,
        timeout: Option<u32>,
        /// Calls, and assignments of their return codes.
        body: Vec<Stmt>,
        /// The `{`
        open: Loc,
    },
    Assert {
        test: Expr,
        text: Bytes,
    },
    Block(Vec<Stmt>),
}

/// When a `parallel` goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Until {
    /// All are done.
    All,
    /// The first one has succeeded.
    Any,
}

#[derive(Clone, Debug)]
pub struct Arm {
    pub values: Vec<Expr>,
    pub body: Vec<Stmt>,
    pub loc: Loc,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AssignOp {
    Set,
    /// :=
    SetOver,
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
    /// .=
    Concat,
}

#[derive(Clone, Debug)]
pub struct Expr {
    pub kind: ExprKind,
    pub loc: Loc,
}

#[derive(Clone, Debug)]
pub enum ExprKind {
    Int(i64),
    /// A quoted literal: never expanded.
    Text(Bytes),
    Null,
    Var(VarSpec),
    Call(Call),
    /// route(name, args...)
    Route(RouteRef, Vec<Arg>),
    /// `$x = value` in a condition: whether the variable takes it.
    Assign(Box<Stmt>),
    /// `[ expr ]` in conditions: the arithmetic value as a truth
    Bracket(Box<Expr>),
    Not(Box<Expr>),
    /// unary ~ and -
    BitNot(Box<Expr>),
    Neg(Box<Expr>),
    /// Parenthesised; kept as written
    Group(Box<Expr>),
    Binary(BinOp, Box<Expr>, Box<Expr>),
    /// Bare words of the core in tests: myself, method, uri, src_ip, dst_ip, proto, af, retcode, msg:len, INET, UDP...
    Word(Bytes),
    /// `if (!async(f(), r))`: the async statement as a condition
    Async(Box<Stmt>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BinOp {
    Eq,
    Ne,
    Lt,
    Gt,
    Le,
    Ge,
    Match,
    NotMatch,
    And,
    Or,
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    BitAnd,
    BitOr,
    BitXor,
    ShiftLeft,
    ShiftRight,
    Concat,
}

#[derive(Clone, Debug)]
pub enum RouteRef {
    Name(Bytes, Loc),
    Var(VarSpec),
    /** "quoted with $vars" */
    Format(Bytes, Loc),
}

/// A function call as written.
#[derive(Clone, Debug)]
pub struct Call {
    pub name: Bytes,
    pub args: Vec<Arg>,
    pub loc: Loc,
}

#[derive(Clone, Debug)]
pub struct Arg {
    pub kind: ArgKind,
    pub loc: Loc,
}

#[derive(Clone, Debug)]
pub enum ArgKind {
    /// `f(,x)`: left out
    Empty,
    Int(i64),
    /// Quoted: the text inside the quotes, escapes resolved. Functions read it as a format.
    Text(Bytes),
    /// Unquoted variable
    Var(VarSpec),
    /// Unquoted word (2.1: ports, flags, addresses)
    Word(Bytes),
    Expr(Expr),
}

/// `$name(inner)` / `$(<context>name(inner)[index]{class.tran,param}...)`
#[derive(Clone, Debug, PartialEq)]
pub struct VarSpec {
    pub context: Option<Bytes>,
    /// "avp", "ru", "hdr"
    pub name: Bytes,
    /// The raw text between the parentheses; may hold variables; each class reads it its own way.
    pub inner: Option<Bytes>,
    pub index: Option<IndexSpec>,
    pub transformations: Vec<TranSpec>,
    pub loc: Loc,
}

#[derive(Clone, Debug, PartialEq)]
pub enum IndexSpec {
    Int(i32),
    /// `[*]`
    All,
    /// `[append]`: a new value at the end of the list (writing an AVP)
    Append,
    /// A word: few classes know what it means (`$(rtpstat(MOS-max)[tag])`).
    Text(Bytes),
    Var(Box<VarSpec>),
}

/// `{s.substr,1,$var(n)}`: class "s", name "substr" (`{s.encode.hexa}`: "encode.hexa"), raw untrimmed
/// parameters, split at commas outside variables. A lone comma as last parameter (`{s.select,1,,}`) is
/// that comma; the expression of `re.subst` is one parameter, commas and braces in it included.
#[derive(Clone, Debug, PartialEq)]
pub struct TranSpec {
    pub class: Bytes,
    pub name: Bytes,
    pub params: Vec<Bytes>,
    pub loc: Loc,
}
