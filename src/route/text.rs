//! Short text in place: up to `N` bytes need no memory of their own, and so no further cache miss.

/// A text of any length.
#[derive(Debug)]
pub(super) enum Text<const N: usize> {
    Inline { size: u8, bytes: [u8; N] },
    Heap(Box<str>),
}

impl<const N: usize> Text<N> {
    pub(super) fn new(text: &str) -> Self {
        let mut bytes = [0; N];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(room), Ok(size)) => {
                room.copy_from_slice(text.as_bytes());
                Self::Inline { size, bytes }
            }
            _ => Self::Heap(text.into()),
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Inline { size, bytes } => &bytes[..usize::from(*size)],
            Self::Heap(text) => text.as_bytes(),
        }
    }

    /// Checks again that it is a string: for what is not hot.
    pub(super) fn as_str(&self) -> &str {
        str::from_utf8(self.as_bytes()).expect("was a string when it was put in")
    }

    /// Bytes owned, without the text itself.
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::Inline { .. } => 0,
            Self::Heap(text) => text.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_every_length() {
        for size in 0..200 {
            let text = "ü".repeat(size);
            let (short, long) = (Text::<22>::new(&text), Text::<300>::new(&text));
            assert_eq!((short.as_str(), long.as_str()), (&*text, &*text));
            // The length of what is in place is a byte, whatever the room.
            let heap = |room: usize| if 2 * size <= room { 0 } else { 2 * size };
            assert_eq!((short.heap_bytes(), long.heap_bytes()), (heap(22), heap(255)));
        }
        assert_eq!((size_of::<Text<22>>(), size_of::<Text<46>>()), (24, 48));
    }
}
