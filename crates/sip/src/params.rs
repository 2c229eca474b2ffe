use bytes::Bytes;

/// `;name=value;flag` parameters: the raw text after the first `;` (without it).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Params {
    pub text: Bytes,
}

#[allow(unused_variables)]
impl Params {
    /// Value of the parameter, any case: `None` absent, `Some(None)` a flag. Quotes are kept.
    pub fn find(&self, name: &[u8]) -> Option<Option<Bytes>> {
        todo!()
    }
    /// Value if present and not a flag; surrounding quotes removed.
    pub fn value(&self, name: &[u8]) -> Option<Bytes> {
        todo!()
    }
    pub fn iter(&self) -> impl Iterator<Item = (Bytes, Option<Bytes>)> {
        std::iter::empty()
    }
}
