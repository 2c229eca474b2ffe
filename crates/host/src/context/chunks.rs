//! A vector that grows without moving what it holds.

/// As a `Vec`, in pieces: growing copies nothing and leaves no half-empty doubled buffer behind, which tells
/// when there are a hundred thousand large elements.
#[derive(Debug)]
pub struct Chunks<T>(Vec<Vec<T>>);

/// Elements of one piece.
const PIECE: usize = 128;

impl<T> Default for Chunks<T> {
    fn default() -> Self {
        Chunks(Vec::new())
    }
}

impl<T> Chunks<T> {
    pub fn push(&mut self, value: T) {
        match self.0.last_mut().filter(|piece| piece.len() < PIECE) {
            Some(piece) => piece.push(value),
            None => {
                let mut piece = Vec::with_capacity(PIECE);
                piece.push(value);
                self.0.push(piece);
            }
        }
    }

    pub fn len(&self) -> usize {
        self.0.last().map_or(0, |last| (self.0.len() - 1) * PIECE + last.len())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn get(&self, index: usize) -> Option<&T> {
        self.0.get(index / PIECE)?.get(index % PIECE)
    }

    pub fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.0.get_mut(index / PIECE)?.get_mut(index % PIECE)
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flatten()
    }
}

/// Panics when there is no such element, as a slice does.
impl<T> std::ops::Index<usize> for Chunks<T> {
    type Output = T;
    fn index(&self, index: usize) -> &T {
        &self.0[index / PIECE][index % PIECE]
    }
}

impl<T> std::ops::IndexMut<usize> for Chunks<T> {
    fn index_mut(&mut self, index: usize) -> &mut T {
        &mut self.0[index / PIECE][index % PIECE]
    }
}

#[cfg(test)]
mod tests {
    use super::Chunks;

    #[test]
    fn elements_stay_where_they_are() {
        let mut chunks = Chunks::default();
        assert!(chunks.is_empty());
        chunks.push(0);
        let first = &raw const chunks[0];
        (1..1000).for_each(|n| chunks.push(n));
        assert_eq!(chunks.len(), 1000);
        assert!(std::ptr::eq(first, &chunks[0]));
        assert!(chunks.iter().copied().eq(0..1000));
        chunks[999] = 7;
        *chunks.get_mut(128).unwrap() = 8;
        assert_eq!((chunks.get(999), chunks.get(128), chunks.get(1000)), (Some(&7), Some(&8), None));
    }
}
