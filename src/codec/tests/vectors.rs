//! The vector notation itself.

use super::bytes;

#[test]
fn vectors_are_read_as_they_look() {
    assert_eq!(bytes("30 03 | 00 01 'a'"), [0x30, 3, 0, 1, b'a']);
    assert_eq!(bytes("'ab' ff 'c d'"), [b'a', b'b', 0xFF, b'c', b' ', b'd']);
}
