//! Which level a weight of a trellis has: its symbol chooses among eight of 64, and the three symbols before it say which eight.
//!
//! Of each input the weights of outputs *l*, *l + 4*, *l + 8* ... are a sequence (*l* 0 to 3); before the first symbol of one there are zeros.

/// Symbols.
pub const SYMBOLS: u8 = 8;
/// Outputs from one weight of a sequence to the next.
pub const LANES: usize = 4;

/// The levels in order, most of them near zero, as weights are; four bits hold them.
const LEVELS: [i8; 64] = [
    -8, -6, -6, -5, -5, -4, -4, -4, -4, -3, -3, -3, -3, -3, -2, -2, -2, -2, -2, -2, -1, -1, -1, -1, -1, -1,
    -1, -1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 4, 4, 4, 4, 5,
    5, 6, 6, 7,
];

/// The level at each place: every eighth of the levels lie side by side, so that the eight a symbol chooses from span them all.
pub const LEVEL_AT: [i8; 64] = {
    let mut levels = [0; 64];
    let mut place = 0;
    while place < 64 {
        levels[place] = LEVELS[place % 8 * 8 + place / 8];
        place += 1;
    }
    levels
};

/// What the two symbols before the last two turn in the place that those two name.
pub const TURN: [u8; 64] = {
    let mut turns = [0; 64];
    let mut earlier = 0;
    while earlier < 64 {
        let turn = earlier * 37 % 64;
        turns[earlier] = (turn ^ turn >> 3) as u8;
        earlier += 1;
    }
    turns
};

/// The level that four symbols of a sequence name: `later` the last two, `earlier` the two before, of each the later one in the low three bits of six.
pub const fn level(later: u8, earlier: u8) -> i8 {
    LEVEL_AT[((later ^ TURN[(earlier & 63) as usize]) & 63) as usize]
}
