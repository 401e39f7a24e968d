//! Buffers of what servers send, which leave nothing behind.

use zeroize::Zeroizing;

/// Appends to a buffer whose outgrown allocations are wiped, which `Vec`'s own growth does not do.
pub fn append(buffer: &mut Zeroizing<Vec<u8>>, chunk: &[u8]) {
    let needed = buffer.len() + chunk.len();
    if needed > buffer.capacity() {
        let mut larger = Zeroizing::new(Vec::with_capacity(needed.max(2 * buffer.capacity())));
        larger.extend_from_slice(buffer);
        *buffer = larger;
    }
    buffer.extend_from_slice(chunk);
}
