//! Who is there: presence, event packages, lists of resources and their documents. One file or folder each, named as
//! in the reference.

pub mod presence;
pub mod presence_callinfo;
pub mod presence_dialoginfo;
pub mod presence_mwi;
pub mod presence_reginfo;
pub mod presence_xcapdiff;
pub mod presence_xml;
pub mod pua;
pub mod pua_bla;
pub mod pua_dialoginfo;
pub mod pua_mi;
pub mod pua_reginfo;
pub mod pua_usrloc;
pub mod rls;
pub mod xcap;
pub mod xml;

host::modules! {
    presence,
    presence_callinfo,
    presence_dialoginfo,
    presence_mwi,
    presence_reginfo,
    presence_xcapdiff,
    presence_xml,
    pua,
    pua_bla,
    pua_dialoginfo,
    pua_mi,
    pua_reginfo,
    pua_usrloc,
    rls,
    xcap,
    xml,
}

#[cfg(test)]
#[allow(dead_code, unused_imports)]
mod testing {
    testing::over!(crate::ALL, modules::ALL, drivers::ALL);
}
