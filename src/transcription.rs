//! Many recordings, several threads, one order.
//!
//! ```text
//! this thread: read, decode, cut --utterances--> workers (a Transcriber each) --segments--> this thread: sink, in order
//! ```
//!
//! An utterance is recognised by itself, so it makes no difference which thread does it, and results leave in the order in which
//! utterances lie in the recordings: any number of threads gives the same output.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use kinglet_kernels::Kernels;
use kinglet_model_format::Model;
use kinglet_runtime::{Limits, SAMPLE_RATE, Transcriber, Transcript, transcriber_memory};

use crate::audio::{AudioError, AudioReader, Input};
use crate::output::{Segment, Word};
use crate::utterances::{CutUtterance, Utterances};

/// Utterances that may wait for each worker: enough that none is idle, few enough that memory is bounded.
const WAITING_PER_WORKER: usize = 2;

/// What happens to recording number `index`, in order.
pub trait Sink {
    /// Why the sink stops everything.
    type Stop: From<kinglet_runtime::Error>;
    /// The first result is about to come; `promised_seconds` is how long the recording says that it is.
    fn begin(&mut self, index: usize, promised_seconds: Option<f64>) -> Result<(), Self::Stop>;
    /// A segment of the recording that was begun.
    fn segment(&mut self, segment: Segment) -> Result<(), Self::Stop>;
    /// The recording is done; `damage` says what was wrong with it.
    fn end(&mut self, seconds: f64, damage: Option<String>) -> Result<(), Self::Stop>;
    /// The recording gives nothing at all.
    fn fail(&mut self, index: usize, error: AudioError) -> Result<(), Self::Stop>;
}

/// Transcribes `inputs` with `threads` workers; one worker is this thread itself. `keep_doubtful` also gives words that look made up.
///
/// # Errors
/// When the sink stops, or the model and the limits do not go together.
pub fn transcribe<S: Sink>(
    inputs: &[Input],
    model: Model<'_>,
    limits: Limits,
    threads: usize,
    keep_doubtful: bool,
    sink: &mut S,
) -> Result<(), S::Stop> {
    let memory = transcriber_memory(&model, &limits)?;
    let kernels = Kernels::detect();
    let mut queue = Queue { events: VecDeque::new(), capacity: 0, sink };
    if threads <= 1 {
        let mut region = vec![0; memory];
        let mut transcriber = Transcriber::new(model, kernels, limits, &mut region)?;
        return read_all(inputs, limits, &mut queue, &mut |utterance| {
            Event::Segment(Pending::Ready(recognise(&mut transcriber, utterance, keep_doubtful)))
        });
    }
    queue.capacity = threads * WAITING_PER_WORKER;
    let (jobs, waiting) = channel::<Job>();
    let waiting = Mutex::new(waiting);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| work(model, kernels, limits, memory, keep_doubtful, &waiting));
        }
        let mut send = |utterance: CutUtterance<'_>| {
            let (reply, result) = channel();
            let CutUtterance { start_sample, samples, voiced_samples } = utterance;
            // It cannot fail: a worker ends only when this thread drops its side.
            let _ = jobs.send(Job { start_sample, samples: samples.to_vec(), voiced_samples, reply });
            Event::Segment(Pending::Waiting(result))
        };
        let result = read_all(inputs, limits, &mut queue, &mut send);
        drop(jobs);
        result
    })
}

type Recognised = Result<Option<Segment>, kinglet_runtime::Error>;

struct Job {
    start_sample: u64,
    samples: Vec<i16>,
    voiced_samples: u64,
    reply: Sender<Recognised>,
}

fn work(
    model: Model<'_>,
    kernels: Kernels,
    limits: Limits,
    memory: usize,
    keep_doubtful: bool,
    waiting: &Mutex<Receiver<Job>>,
) {
    let mut region = vec![0; memory];
    let mut transcriber = Transcriber::new(model, kernels, limits, &mut region);
    loop {
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { start_sample, samples, voiced_samples, reply }) = job else { return };
        let utterance = CutUtterance { start_sample, samples: &samples, voiced_samples };
        let result = match &mut transcriber {
            Ok(transcriber) => recognise(transcriber, utterance, keep_doubtful),
            Err(cause) => Err(*cause),
        };
        // Nobody listens any more once the sink has stopped.
        let _ = reply.send(result);
    }
}

fn recognise(
    transcriber: &mut Transcriber<'_, '_>,
    utterance: CutUtterance<'_>,
    keep_doubtful: bool,
) -> Recognised {
    let CutUtterance { start_sample, samples, voiced_samples } = utterance;
    let transcript = transcriber.transcribe(samples)?;
    let doubtful = transcript.is_doubtful(voiced_samples);
    if doubtful && !keep_doubtful {
        return Ok(None);
    }
    Ok(segment(start_sample, samples.len(), &transcript, doubtful))
}

/// What was said in an utterance, in times of the recording; `None` where nothing was.
pub fn segment(
    start_sample: u64,
    samples: usize,
    transcript: &Transcript<'_>,
    doubtful: bool,
) -> Option<Segment> {
    let seconds = |samples: u64| samples as f64 / f64::from(SAMPLE_RATE);
    let start = seconds(start_sample);
    (!transcript.text().is_empty()).then(|| Segment {
        start,
        end: seconds(start_sample + samples as u64),
        text: transcript.text().into(),
        confidence: transcript.confidence().into(),
        tokens: transcript.tokens().into(),
        words: transcript
            .words()
            .map(|word| Word {
                word: word.text.into(),
                start: start + f64::from(word.start_seconds),
                end: start + f64::from(word.end_seconds),
                confidence: word.confidence.into(),
            })
            .collect(),
        doubtful,
    })
}

/// What the sink will be told, once its turn has come.
enum Event {
    Begin { index: usize, promised_seconds: Option<f64> },
    Segment(Pending),
    End { seconds: f64, damage: Option<String> },
    Fail { index: usize, error: AudioError },
}

enum Pending {
    Ready(Recognised),
    Waiting(Receiver<Recognised>),
}

struct Queue<'s, S> {
    events: VecDeque<Event>,
    /// Events that may wait.
    capacity: usize,
    sink: &'s mut S,
}

impl<S: Sink> Queue<'_, S> {
    fn push(&mut self, event: Event) -> Result<(), S::Stop> {
        self.events.push_back(event);
        self.drain(self.capacity)
    }

    /// Tells the sink until at most `remaining` events wait.
    fn drain(&mut self, remaining: usize) -> Result<(), S::Stop> {
        while self.events.len() > remaining {
            let Some(event) = self.events.pop_front() else { break };
            match event {
                Event::Begin { index, promised_seconds } => self.sink.begin(index, promised_seconds)?,
                Event::Segment(pending) => {
                    let recognised = match pending {
                        Pending::Ready(recognised) => recognised,
                        // A worker answers every job before it ends.
                        Pending::Waiting(result) => result.recv().unwrap_or(Ok(None)),
                    };
                    if let Some(segment) = recognised? {
                        self.sink.segment(segment)?;
                    }
                }
                Event::End { seconds, damage } => self.sink.end(seconds, damage)?,
                Event::Fail { index, error } => self.sink.fail(index, error)?,
            }
        }
        Ok(())
    }
}

fn read_all<S: Sink>(
    inputs: &[Input],
    limits: Limits,
    queue: &mut Queue<'_, S>,
    recognise: &mut dyn FnMut(CutUtterance<'_>) -> Event,
) -> Result<(), S::Stop> {
    for (index, input) in inputs.iter().enumerate() {
        let mut utterances = match AudioReader::open(input) {
            Ok(reader) => Utterances::new(reader, limits.utterance_seconds),
            Err(error) => {
                queue.push(Event::Fail { index, error })?;
                continue;
            }
        };
        let promised_seconds =
            utterances.reader().promised_samples().map(|samples| samples as f64 / f64::from(SAMPLE_RATE));
        let mut begin = Some(Event::Begin { index, promised_seconds });
        let failed = loop {
            match utterances.next_utterance() {
                Ok(Some(utterance)) => {
                    // A recording begins only now, so that one without any audio is nothing but an error.
                    if let Some(event) = begin.take() {
                        queue.push(event)?;
                    }
                    queue.push(recognise(utterance))?;
                }
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        match failed {
            Some(error) if begin.is_some() => queue.push(Event::Fail { index, error })?,
            failed => {
                if let Some(event) = begin.take() {
                    queue.push(event)?;
                }
                let damage = failed.map(|error| error.to_string()).or_else(|| utterances.reader().damage());
                queue.push(Event::End { seconds: utterances.seconds(), damage })?;
            }
        }
    }
    queue.drain(0)
}
