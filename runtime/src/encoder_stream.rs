//! The encoder of a model with chunks, run as its frames arrive.
//!
//! ```text
//! frames -> chunk -> block 0 [cache] -> block 1 [cache] -> ... -> norm -> states of the chunk
//! ```
//!
//! A cache keeps keys and values of as many frames as later chunks attend to or remember, so memory does not grow with
//! the audio. The states are those of the whole utterance at once, bit for bit.

use crate::angles::Angle;
use crate::encoder::{Encoder, EncoderBuffers, RotaryTables, Window};
use crate::error::Error;
use crate::project::{part, part_mut, prefix_mut};
use crate::region::{ALIGNMENT, Buffer, Region, addressable, buffers};
use crate::rotary;
use crate::sizes::{KEPT_STEP, Sizes, encoder_is_float};
use kinglet_kernels::Kernels;
use kinglet_model_format::{ChunkConfig, Model};

buffers! {
    /// What a stream keeps besides the encoder's working memory.
    StreamBuffers(sizes: Sizes) phase "encoder stream" {
        /// `[chunk, inputs or width]`.
        states: [f32; sizes.chunk_frames, sizes.encoder_state()],
        /// `[chunk, rotary width / 2]`.
        cosines: [f32; sizes.chunk_frames, sizes.encoder_rotary / 2],
        /// `[chunk, rotary width / 2]`.
        sines: [f32; sizes.chunk_frames, sizes.encoder_rotary / 2],
        /// `[rotary width / 2]`: where the rotary positions stand.
        angles: [Angle; sizes.encoder_rotary / 2],
    }
}

/// Encodes one utterance after the other, each as its frames arrive, in memory that it was given once.
pub struct EncoderStream<'m, 'r> {
    model: Model<'m>,
    kernels: Kernels,
    chunk: ChunkConfig,
    /// Frames of a cache, and how many of them are needed from one chunk to the next.
    capacity: usize,
    kept: usize,
    /// Whether the encoder attends in floats.
    is_float: bool,
    stream: StreamBuffers<'r>,
    buffers: EncoderBuffers<'r>,
    /// Frames of the utterance before the chunk that is being filled.
    position: usize,
    /// Frames before it that the caches still hold.
    history: usize,
    /// Frames in that chunk.
    pending: usize,
}

/// Bytes that an [`EncoderStream`] needs.
///
/// # Errors
/// When the model's encoder has no chunks, or this version cannot run the model.
pub fn encoder_stream_memory(model: &Model<'_>) -> Result<usize, Error> {
    let sizes = Sizes::of_stream(model)?;
    let parts = [StreamBuffers::bytes(&sizes), EncoderBuffers::bytes(&sizes)];
    addressable(parts.into_iter().fold(ALIGNMENT as u64, u64::saturating_add))
}

/// Calls `each` with every buffer of an [`EncoderStream`].
///
/// # Errors
/// As [`encoder_stream_memory`].
pub fn list_encoder_stream_buffers(model: &Model<'_>, each: &mut dyn FnMut(Buffer)) -> Result<(), Error> {
    let sizes = Sizes::of_stream(model)?;
    StreamBuffers::list(&sizes, each);
    EncoderBuffers::list(&sizes, each);
    Ok(())
}

impl<'m, 'r> EncoderStream<'m, 'r> {
    /// Lays out `region`, which must have [`encoder_stream_memory`] bytes.
    ///
    /// # Errors
    /// When the region is too small, the model's encoder has no chunks, or this version cannot run the model.
    pub fn new(model: Model<'m>, kernels: Kernels, region: &'r mut [u8]) -> Result<Self, Error> {
        let needed = encoder_stream_memory(&model)?;
        if region.len() < needed {
            return Err(Error::RegionTooSmall { needed, given: region.len() });
        }
        let sizes = Sizes::of_stream(&model)?;
        let chunk = model.config().encoder.chunk.ok_or(Error::NoChunks)?;
        let mut region = Region::new(region);
        let stream = StreamBuffers::carve(region.take_bytes(StreamBuffers::bytes(&sizes))?, &sizes)?;
        let buffers = EncoderBuffers::carve(region.take_bytes(EncoderBuffers::bytes(&sizes))?, &sizes)?;
        let capacity = sizes.frames;
        let mut stream = Self {
            model,
            kernels,
            chunk,
            capacity,
            kept: capacity - chunk.frames - (KEPT_STEP - 1),
            is_float: encoder_is_float(&model),
            stream,
            buffers,
            position: 0,
            history: 0,
            pending: 0,
        };
        stream.reset();
        Ok(stream)
    }

    /// Forgets what was pushed: the next frame begins an utterance.
    pub fn reset(&mut self) {
        let config = self.model.config().encoder;
        rotary::start(config.rotary_base, config.rotary_width, self.stream.angles);
        self.encoder().start();
        (self.position, self.history, self.pending) = (0, 0, 0);
    }

    /// Takes frames of the frontend's output, `[frames, inputs]`, and calls `each` with the states
    /// `[chunk frames, width]` of every chunk that they fill.
    ///
    /// # Errors
    /// When `frames` does not hold whole frames.
    pub fn push(&mut self, frames: &[f32], each: &mut dyn FnMut(&[f32])) -> Result<(), Error> {
        let inputs = self.model.encoder_inputs();
        let mut rest = frames;
        if !rest.len().is_multiple_of(inputs) {
            return Err(Error::PartialFrame { values: rest.len(), inputs });
        }
        while !rest.is_empty() {
            let taken = (self.chunk.frames - self.pending).min(rest.len() / inputs);
            let (now, later) = rest.split_at(taken * inputs);
            part_mut(self.stream.states, self.pending * inputs, now.len())?.copy_from_slice(now);
            self.pending += taken;
            rest = later;
            if self.pending == self.chunk.frames {
                self.encode(each)?;
            }
        }
        Ok(())
    }

    /// Ends the utterance: calls `each` with the states of the last chunk, if it has any frames. The next frame begins
    /// another utterance.
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn finish(&mut self, each: &mut dyn FnMut(&[f32])) -> Result<(), Error> {
        if self.pending > 0 {
            self.encode(each)?;
        }
        self.reset();
        Ok(())
    }

    fn encoder(&mut self) -> Encoder<'_, 'r> {
        Encoder {
            kernels: self.kernels,
            config: self.model.config().encoder,
            rotary: RotaryTables::new(self.stream.cosines, self.stream.sines),
            capacity: self.capacity,
            is_float: self.is_float,
            buffers: &mut self.buffers,
            kept: &mut [],
        }
    }

    /// Takes the frames that are there through all blocks.
    fn encode(&mut self, each: &mut dyn FnMut(&[f32])) -> Result<(), Error> {
        let (model, frames, history) = (self.model, self.pending, self.history);
        let config = model.config().encoder;
        let StreamBuffers { cosines, sines, angles, .. } = &mut self.stream;
        rotary::fill_on(angles, cosines, sines);
        // The caches move by whole groups of frames, so they may keep a few more than are needed.
        let dropped = (history + frames).saturating_sub(self.kept) / KEPT_STEP * KEPT_STEP;
        let states = core::mem::take(&mut self.stream.states);
        let window = Window { position: self.position, history, frames, chunk: config.chunk, cache: 0 };
        let encoded = encode_chunk(&mut self.encoder(), &model, window, dropped, states);
        self.stream.states = states;
        encoded?;
        each(part(self.stream.states, 0, frames * config.width)?);
        self.position += frames;
        self.history = history + frames - dropped;
        self.pending = 0;
        Ok(())
    }
}

fn encode_chunk(
    encoder: &mut Encoder<'_, '_>,
    model: &Model<'_>,
    window: Window,
    dropped: usize,
    states: &mut [f32],
) -> Result<(), Error> {
    encoder.add_positions(prefix_mut(states, window.frames * model.encoder_inputs())?);
    for (cache, block) in model.encoder_blocks().enumerate() {
        encoder.block(&block, Window { cache, ..window }, states)?;
        encoder.drop_frames(cache, window.history + window.frames, dropped)?;
    }
    encoder
        .final_norm(&model.encoder_norm(), prefix_mut(states, window.frames * model.config().encoder.width)?)
}
