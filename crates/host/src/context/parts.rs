//! Slots by type: what a floor or a module keeps in an object that knows nothing of it.

use ahash::AHashMap;
use std::any::{Any, TypeId};
use std::fmt;

/// A value that a slot can hold. Nobody implements it by hand.
trait Part: Any + Send + Sync {
    fn boxed(&self) -> Box<dyn Part>;
    fn any(&self) -> &dyn Any;
    fn any_mut(&mut self) -> &mut dyn Any;
}

impl<T: Any + Clone + Send + Sync> Part for T {
    fn boxed(&self) -> Box<dyn Part> {
        Box::new(self.clone())
    }
    fn any(&self) -> &dyn Any {
        self
    }
    fn any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

/// At most one value of each type. A look-up hashes: what every message needs is looked up once, when a worker
/// starts. A clone clones every value.
#[derive(Default)]
pub struct Parts(AHashMap<TypeId, Box<dyn Part>>);

impl Parts {
    /// The value of a type, when there is one.
    pub fn find<T: Any>(&self) -> Option<&T> {
        self.0.get(&TypeId::of::<T>()).and_then(|part| (**part).any().downcast_ref())
    }

    /// The value of a type, made by `Default` when there is none.
    pub fn entry<T: Any + Clone + Default + Send + Sync>(&mut self) -> &mut T {
        let part = self.0.entry(TypeId::of::<T>()).or_insert_with(|| Box::new(T::default()));
        (**part).any_mut().downcast_mut().expect("keyed by its own type")
    }

    /// Puts a value in the place of the one of its type.
    pub fn set<T: Any + Clone + Send + Sync>(&mut self, value: T) {
        self.0.insert(TypeId::of::<T>(), Box::new(value));
    }
}

impl Clone for Parts {
    fn clone(&self) -> Parts {
        Parts(self.0.iter().map(|(id, part)| (*id, (**part).boxed())).collect())
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parts({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_of_each_type() {
        let mut parts = Parts::default();
        assert_eq!(parts.find::<u8>(), None);
        *parts.entry::<u8>() += 1;
        parts.set(String::from("a"));
        let copy = parts.clone();
        *parts.entry::<u8>() += 1;
        parts.set(String::from("b"));
        assert_eq!((parts.find(), copy.find()), (Some(&2u8), Some(&1u8)));
        assert_eq!(copy.find::<String>().map(String::as_str), Some("a"));
    }
}
