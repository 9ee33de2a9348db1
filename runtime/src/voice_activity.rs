//! Is somebody speaking? One answer for every frame of 16 ms.
//!
//! Two opinions are combined. A small recurrent network (`earshot`) knows what a voice sounds like, but takes loud
//! steady noise and held chords for one. A noise floor, the quietest level of the last seconds, knows nothing of
//! voices, but is sure that whatever stays at the same level for seconds is not speech. A frame is voiced where both agree.
//! The measurements behind this choice are in `docs/voice-activity.md`.
//!
//! Only float additions, multiplications and divisions in a fixed order and `libm` are used, so that every
//! instruction set comes to the same answer, bit for bit.

use earshot::Detector;

/// Samples in one frame: 16 ms at 16 kHz.
pub const FRAME_SAMPLES: usize = 256;

/// Score from which a frame counts as voiced.
const VOICE_SCORE: f32 = 0.5;
/// Score that keeps a frame voiced when the one before was: unvoiced consonants and word endings score lower.
const VOICE_SCORE_KEPT: f32 = 0.35;
/// What stands out is this much louder than what it is compared with, as a ratio of powers (4 dB). The smoothed level of
/// steady noise stays within 1.5 dB of its mean, so two of its frames never differ by as much.
pub(crate) const LEVEL_MARGIN: f32 = 2.5;
/// The level that is compared is taken of sums over this many samples: what is left is below 1 kHz, where
/// vowels are strong and white noise is weak, so that speech in noise still rises above the floor.
const BAND_BLOCK: usize = 8;
/// Share of the new frame in the smoothed band level: a time constant of 4 frames.
const BAND_SMOOTHING: f32 = 0.25;
/// The first-order difference that flattens speech and takes hum and constant offsets out of the level.
const PRE_EMPHASIS: f32 = 0.97;
/// After this many frames (0.5 s) in which nothing stands out the network rests, since its opinion would make no difference. Waiting
/// then costs a thirtieth.
const REST_AFTER: u32 = 31;
/// The floor is the minimum over this many blocks ...
const FLOOR_BLOCKS: usize = 8;
/// ... of this many frames (0.5 s): long enough to hold a gap between syllables, short enough to follow a fan.
const FLOOR_BLOCK_FRAMES: u32 = 31;

/// What is known of one frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FrameActivity {
    /// The network's score, 0 to 1; 0 while it rests.
    pub score: f32,
    /// Mean square of the pre-emphasized samples.
    pub level: f32,
    /// Level below 1 kHz, smoothed over about 4 frames: the one that is compared with the noise floor. No absolute unit.
    pub smoothed_level: f32,
    /// Whether the frame is taken for speech.
    pub voiced: bool,
}

/// The detector: about 8.5 KB of state, nothing allocated.
pub struct VoiceActivity {
    network: Detector,
    previous_sample: f32,
    previous_block: f32,
    voiced: bool,
    quiet_frames: u32,
    floor: NoiseFloor,
}

impl Default for VoiceActivity {
    fn default() -> Self {
        Self::new()
    }
}

impl VoiceActivity {
    /// A detector that has heard nothing.
    pub fn new() -> Self {
        Self {
            network: Detector::default(),
            previous_sample: 0.0,
            previous_block: 0.0,
            voiced: false,
            quiet_frames: 0,
            floor: NoiseFloor::new(),
        }
    }

    /// Judges the next frame: 16 kHz mono in `[-1, 1]`. Samples outside are clipped and samples that are no numbers count as
    /// zero, because one of them would stay in the state for good.
    pub fn push(&mut self, frame: &[f32; FRAME_SAMPLES]) -> FrameActivity {
        let clean = frame.map(|sample| if sample.is_nan() { 0.0 } else { sample.clamp(-1.0, 1.0) });
        let level = difference_level(clean.iter().copied(), &mut self.previous_sample);
        let blocks = clean.chunks_exact(BAND_BLOCK).map(|block| block.iter().sum());
        let band_level = difference_level(blocks, &mut self.previous_block);
        let (smoothed_level, floor) = self.floor.push(band_level);
        let stands_out = smoothed_level > floor * LEVEL_MARGIN;
        self.quiet_frames = if stands_out { 0 } else { self.quiet_frames.saturating_add(1) };
        let score = if self.quiet_frames < REST_AFTER {
            self.network.predict_f32(&clean)
        } else {
            if self.quiet_frames == REST_AFTER {
                self.network.reset();
            }
            0.0
        };
        let needed = if self.voiced { VOICE_SCORE_KEPT } else { VOICE_SCORE };
        self.voiced = score >= needed && stands_out;
        FrameActivity { score, level, smoothed_level, voiced: self.voiced }
    }

    /// Forgets everything, for the next recording.
    pub fn reset(&mut self) {
        self.network.reset();
        self.previous_sample = 0.0;
        self.previous_block = 0.0;
        self.voiced = false;
        self.quiet_frames = 0;
        self.floor = NoiseFloor::new();
    }
}

/// Mean square of the pre-emphasized values.
fn difference_level(values: impl ExactSizeIterator<Item = f32>, previous: &mut f32) -> f32 {
    let count = values.len() as f32;
    let mut energy = 0.0;
    for value in values {
        let difference = value - PRE_EMPHASIS * *previous;
        energy += difference * difference;
        *previous = value;
    }
    energy / count
}

/// The quietest smoothed level of the last four seconds ("minimum statistics", Martin 2001).
struct NoiseFloor {
    smoothed: f32,
    blocks: [f32; FLOOR_BLOCKS],
    next_block: usize,
    current: f32,
    frames: u32,
}

impl NoiseFloor {
    const fn new() -> Self {
        Self {
            smoothed: 0.0,
            blocks: [f32::INFINITY; FLOOR_BLOCKS],
            next_block: 0,
            current: f32::INFINITY,
            frames: 0,
        }
    }

    /// Takes the level of a frame and returns the smoothed level and its floor.
    fn push(&mut self, level: f32) -> (f32, f32) {
        let heard_nothing = self.current.is_infinite() && self.blocks[0].is_infinite();
        // Without this the first frames would rise from zero, and steady noise would stand out from them.
        let share = if heard_nothing { 1.0 } else { BAND_SMOOTHING };
        self.smoothed += share * (level - self.smoothed);
        self.current = self.current.min(self.smoothed);
        self.frames += 1;
        let floor = self.blocks.iter().fold(self.current, |floor, &block| floor.min(block));
        if self.frames == FLOOR_BLOCK_FRAMES {
            self.blocks[self.next_block] = self.current;
            self.next_block = (self.next_block + 1) % FLOOR_BLOCKS;
            self.current = f32::INFINITY;
            self.frames = 0;
        }
        (self.smoothed, floor)
    }
}
