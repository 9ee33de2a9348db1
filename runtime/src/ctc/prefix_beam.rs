//! Prefix beam search (Hannun et al. 2014, arXiv 1408.2873): alignments that spell the same are added up.

use super::hypotheses::{Choice, Hypotheses, log_add};
use super::{EXTENSIONS, FrameScores};
use crate::sizes::MAX_BEAM;

/// Each prefix as it is, and with each of the extensions behind it.
const MAX_CHOICES: usize = MAX_BEAM * (EXTENSIONS + 1);

/// Takes one frame: each prefix may stay as it is or grow by one of the tokens in `top`.
pub(super) fn step(scores: &FrameScores<'_>, top: &[u32], hypotheses: &mut Hypotheses<'_>) {
    let count = hypotheses.len();
    let none = Choice { parent: 0, added: None, blank: f32::NEG_INFINITY, token: f32::NEG_INFINITY };
    let mut choices = [none; MAX_CHOICES];
    let mut found = 0;
    for index in 0..count {
        let choice = stay(scores, index, hypotheses);
        if let Some(place) = choices.get_mut(found) {
            (*place, found) = (choice, found + 1);
        }
    }
    for parent in (0..count).filter(|&parent| !hypotheses.is_full(parent)) {
        for &token in top.iter().filter(|&&token| token != scores.blank) {
            // Where a prefix of the beam is this one with the token, its own choice has counted that already.
            let is_there =
                |other| hypotheses.tokens(other).last() == Some(&token) && hypotheses.follows(other, parent);
            if (0..count).any(is_there) {
                continue;
            }
            let choice = Choice {
                parent,
                added: Some(token),
                blank: f32::NEG_INFINITY,
                token: grow(scores, parent, token, hypotheses),
            };
            if let Some(place) = choices.get_mut(found).filter(|_| choice.token > f32::NEG_INFINITY) {
                (*place, found) = (choice, found + 1);
            }
        }
    }
    // Insertion keeps the order of equals: the result is the same everywhere.
    let mut best = [none; MAX_BEAM];
    let mut totals = [f32::NEG_INFINITY; MAX_BEAM];
    let mut kept = 0;
    for choice in choices.iter().take(found) {
        let total = choice.total();
        let place = totals.iter().take(kept).position(|&other| other < total).unwrap_or(kept);
        let room = hypotheses.room();
        if place < room {
            best[place..room].rotate_right(1);
            totals[place..room].rotate_right(1);
            (best[place], totals[place]) = (*choice, total);
            kept = (kept + 1).min(room);
        }
    }
    hypotheses.replace(best.get(..kept).unwrap_or(&[]), scores.frame, |token| scores.of(token));
}

/// A prefix that stays as it is: no token sounds, its last one sounds on, or a shorter prefix of the beam grows into it.
fn stay(scores: &FrameScores<'_>, index: usize, hypotheses: &mut Hypotheses<'_>) -> Choice {
    let prefix = hypotheses.prefix(index);
    let blank = prefix.total() + scores.of_blank();
    let Some(&last) = hypotheses.tokens(index).last() else {
        return Choice { parent: index, added: None, blank, token: f32::NEG_INFINITY };
    };
    let score = scores.of(last);
    let mut token = prefix.token + score;
    for shorter in 0..hypotheses.len() {
        if hypotheses.follows(index, shorter) && !hypotheses.is_full(shorter) {
            token = log_add(token, grow(scores, shorter, last, hypotheses));
        }
    }
    if score > scores.of_blank() {
        hypotheses.prolong(index, scores.frame, score);
    }
    Choice { parent: index, added: None, blank, token }
}

/// Log probability that `token` begins behind a prefix at this frame: behind its own like only after a blank.
fn grow(scores: &FrameScores<'_>, index: usize, token: u32, hypotheses: &Hypotheses<'_>) -> f32 {
    let prefix = hypotheses.prefix(index);
    let repeats = hypotheses.tokens(index).last() == Some(&token);
    scores.of(token) + if repeats { prefix.blank } else { prefix.total() }
}
