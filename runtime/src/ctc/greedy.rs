//! The most probable token of each frame; equal neighbours are one token, and blanks none.

use super::FrameScores;
use super::hypotheses::Hypotheses;

/// Takes one frame, whose most probable token is `best`.
pub(super) fn step(scores: &FrameScores<'_>, best: u32, hypotheses: &mut Hypotheses<'_>) {
    let prefix = hypotheses.prefix(0);
    // One alignment is followed, so only one of the two is not minus infinity: which says what the last frame was.
    let after_token = prefix.token > prefix.blank;
    let total = prefix.token.max(prefix.blank);
    let score = scores.of(best);
    if best == scores.blank {
        hypotheses.set(0, total + score, f32::NEG_INFINITY);
        return;
    }
    if after_token && hypotheses.tokens(0).last() == Some(&best) {
        hypotheses.prolong(0, scores.frame, score);
    } else {
        hypotheses.push(0, best, scores.frame, score);
    }
    hypotheses.set(0, f32::NEG_INFINITY, total + score);
}
