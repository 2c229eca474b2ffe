//! Flags of the message, of its branches, and (2.x) of the script.

use super::Core;
use super::arg::{BRANCH, Flag, MESSAGE};
use host::registrar::Since;
use host::vars::flags::ScriptFlags;
use host::{Call, Ctx, Int, Registrar, Routes};

type Message = Flag<MESSAGE>;
type OfBranch = Flag<BRANCH>;

pub fn register(m: &mut Registrar<Core>) {
    let all = Routes::ALL;
    m.function("setflag", all, |call: &mut Call<Core>, flag: Message| set(&mut call.ctx.state.flags, flag.0));
    m.function("resetflag", all, |call: &mut Call<Core>, flag: Message| {
        reset(&mut call.ctx.state.flags, flag.0)
    });
    m.function("isflagset", all, |call: &mut Call<Core>, flag: Message| call.ctx.state.flags & flag.0 != 0);
    for name in ["setsflag", "setscriptflag"] {
        m.function_of(Since::V21, name, all, |call: &mut Call<Core>, flag: Message| {
            set(script_flags(call.ctx), flag.0)
        });
    }
    for name in ["resetsflag", "resetscriptflag"] {
        m.function_of(Since::V21, name, all, |call: &mut Call<Core>, flag: Message| {
            reset(script_flags(call.ctx), flag.0)
        });
    }
    for name in ["issflagset", "isscriptflagset"] {
        m.function_of(Since::V21, name, all, |call: &mut Call<Core>, flag: Message| {
            *script_flags(call.ctx) & flag.0 != 0
        });
    }
    m.function_of(
        Since::V4,
        "setbflag",
        all,
        |call: &mut Call<Core>, flag: OfBranch, branch: Option<Int>| set_branch(call.ctx, flag, branch),
    );
    m.function_of(
        Since::V4,
        "resetbflag",
        all,
        |call: &mut Call<Core>, flag: OfBranch, branch: Option<Int>| reset_branch(call.ctx, flag, branch),
    );
    m.function_of(
        Since::V4,
        "isbflagset",
        all,
        |call: &mut Call<Core>, flag: OfBranch, branch: Option<Int>| is_set(call.ctx, flag, branch),
    );
    // 2.x names the branch first, when it does.
    for name in ["setbflag", "setbranchflag"] {
        m.function_of(Since::V21, name, all, |call: &mut Call<Core>, flag: OfBranch| {
            set_branch(call.ctx, flag, None)
        });
        m.function_of(Since::V21, name, all, |call: &mut Call<Core>, branch: Int, flag: OfBranch| {
            set_branch(call.ctx, flag, Some(branch))
        });
    }
    for name in ["resetbflag", "resetbranchflag"] {
        m.function_of(Since::V21, name, all, |call: &mut Call<Core>, flag: OfBranch| {
            reset_branch(call.ctx, flag, None)
        });
        m.function_of(Since::V21, name, all, |call: &mut Call<Core>, branch: Int, flag: OfBranch| {
            reset_branch(call.ctx, flag, Some(branch))
        });
    }
    for name in ["isbflagset", "isbranchflagset"] {
        m.function_of(Since::V21, name, all, |call: &mut Call<Core>, flag: OfBranch| {
            is_set(call.ctx, flag, None)
        });
        m.function_of(Since::V21, name, all, |call: &mut Call<Core>, branch: Int, flag: OfBranch| {
            is_set(call.ctx, flag, Some(branch))
        });
    }
}

fn set(flags: &mut u32, bit: u32) -> i32 {
    *flags |= bit;
    1
}

fn reset(flags: &mut u32, bit: u32) -> i32 {
    *flags &= !bit;
    1
}

fn script_flags(ctx: &mut Ctx) -> &mut u32 {
    &mut ctx.state.ext.entry::<ScriptFlags>().0
}

/// The flags of branch n: 0, or none given, is the R-URI's. `None`: there is no such branch.
fn flags_of(ctx: &mut Ctx, branch: Option<Int>) -> Option<&mut u32> {
    match branch.map_or(0, |n| n.0) {
        0 => Some(&mut ctx.state.branch_flags),
        n => ctx.state.branches.get_mut(usize::try_from(n - 1).ok()?).map(|b| &mut b.flags),
    }
}

fn set_branch(ctx: &mut Ctx, flag: OfBranch, branch: Option<Int>) -> i32 {
    flags_of(ctx, branch).map_or(-1, |flags| set(flags, flag.0))
}

fn reset_branch(ctx: &mut Ctx, flag: OfBranch, branch: Option<Int>) -> i32 {
    flags_of(ctx, branch).map_or(-1, |flags| reset(flags, flag.0))
}

fn is_set(ctx: &mut Ctx, flag: OfBranch, branch: Option<Int>) -> bool {
    flags_of(ctx, branch).is_some_and(|flags| *flags & flag.0 != 0)
}
