//! What happened, as one number: two runs of one seed must agree on it.

/// The output function of splitmix64: every bit depends on every bit.
pub(super) const fn mix(state: u64) -> u64 {
    let mut mixed = state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// A running hash of everything observable, in its order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Trace(u64);

impl Trace {
    pub(super) const fn number(&mut self, number: u64) {
        self.0 = mix(self.0 ^ number).wrapping_add(0x9E37_79B9_7F4A_7C15);
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.number(u64::from_le_bytes(word));
        }
    }

    pub(super) const fn value(self) -> u64 {
        self.0
    }
}
