//! xlog: 1.x loads it; the function is part of the core here.

use host::Registrar;

#[derive(Default)]
pub struct Xlog;

pub fn register(m: &mut Registrar<Xlog>) {
    m.ignored(&["buf_size"], "lines are as long as they are");
    m.ignored(&["force_color"], "write xlog_force_color, the parameter of the core");
}
