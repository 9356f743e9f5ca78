//! The data types of the wire (section 1.5), appended to a `Vec`.
//!
//! Callers bound what they pass: a string or binary over 65,535 bytes or a packet over 256 MiB is a bug here and panics.
#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, reason = "sizes of what is in memory")]

/// The largest variable byte integer.
pub(super) const VARIABLE_BYTE_INTEGER_MAX: u32 = 268_435_455;

/// How many bytes the value takes in its shortest form.
#[inline]
pub(super) fn variable_byte_integer_size(value: u32) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

/// The value in its shortest form, and its size.
#[inline]
pub(super) fn variable_byte_integer_bytes(value: usize) -> ([u8; 4], usize) {
    let value = u32::try_from(value).unwrap_or(u32::MAX);
    assert!(value <= VARIABLE_BYTE_INTEGER_MAX, "lengths are bounded by the packet size");
    let size = variable_byte_integer_size(value);
    let mut bytes = [0, 7, 14, 21].map(|shift| 0x80 | (value >> shift & 0x7F).to_le_bytes()[0]);
    bytes[size - 1] &= 0x7F;
    (bytes, size)
}

#[inline]
pub(super) fn put_variable_byte_integer(out: &mut Vec<u8>, value: usize) {
    let (bytes, size) = variable_byte_integer_bytes(value);
    out.extend_from_slice(&bytes[..size]);
}

#[inline]
pub(super) fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_be_bytes());
}

#[inline]
pub(super) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// The two-byte length of a string or of binary data.
#[inline]
pub(super) fn length_bytes(size: usize) -> [u8; 2] {
    u16::try_from(size).expect("strings and binary data are at most 65535 bytes").to_be_bytes()
}

#[inline]
pub(super) fn put_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&length_bytes(bytes.len()));
    out.extend_from_slice(bytes);
}

#[inline]
pub(super) fn put_string(out: &mut Vec<u8>, string: &str) {
    put_binary(out, string.as_bytes());
}

/// A packet whose remaining length is known only after its body was written.
pub(super) fn put_packet(out: &mut Vec<u8>, first_byte: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(first_byte);
    put_prefixed(out, body);
}

/// What `body` writes, behind its length as a variable byte integer: a property block, or the rest of a packet.
///
/// Costs a move of what was written by up to three bytes; no allocation besides what `out` needs.
pub(super) fn put_prefixed(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    const ROOM: usize = 4;
    let start = out.len();
    out.extend_from_slice(&[0; ROOM]);
    body(out);
    let body_size = out.len() - start - ROOM;
    let (length, length_size) = variable_byte_integer_bytes(body_size);
    out.copy_within(start + ROOM.., start + length_size);
    out.truncate(start + length_size + body_size);
    out[start..start + length_size].copy_from_slice(&length[..length_size]);
}
