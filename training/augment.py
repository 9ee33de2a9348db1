"""What rooms, microphones and speakers do to audio; teacher and student hear the same result."""

import numpy
import torch

SAMPLE_RATE = 16000


def augment(audio: torch.Tensor, generator: numpy.random.Generator, share: float, speed: float) -> torch.Tensor:
    """Each change on its `share` of the batches `[clips, samples]`, that of `speed` on another; what is said stays whole, so slower speech is longer."""
    if generator.random() < speed:
        audio = change_speed(audio, generator.uniform(0.85, 1.15))
    if generator.random() < share:
        audio = reverberate(audio, generator.uniform(0.1, 0.5), generator)
    if generator.random() < share:
        audio = limit_band(audio, generator.uniform(3000, 7500))
    if generator.random() < share:
        audio = add_noise(audio, generator.uniform(10, 40), generator.uniform(0, 1))
    if generator.random() < share:
        level = torch.from_numpy(generator.uniform(-12, 6, (len(audio), 1))).to(audio)
        audio = audio * 10 ** (level / 20)
    return audio.clamp(-1, 1)


def change_speed(audio: torch.Tensor, factor: float) -> torch.Tensor:
    """Faster or slower, pitch too: the spectrum of as many samples fewer or more, to a twentieth of a second."""
    return stretch(audio, round(audio.shape[1] / factor / (SAMPLE_RATE // 20)) * (SAMPLE_RATE // 20))


def stretch(audio: torch.Tensor, wanted: int) -> torch.Tensor:
    """So many samples for those of `audio`."""
    samples = audio.shape[1]
    if samples == wanted:
        return audio
    spectrum = torch.fft.rfft(audio)[:, : wanted // 2 + 1]
    return torch.fft.irfft(spectrum, wanted) * (wanted / samples)


def reverberate(audio: torch.Tensor, seconds: float, generator: numpy.random.Generator) -> torch.Tensor:
    """A direct path and decaying noise, 60 dB down after `seconds`."""
    time = numpy.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    response = generator.standard_normal(len(time)) * numpy.exp(-6.9 * time / seconds) * 0.02
    response[0] = 1.0
    size = audio.shape[1] + len(time)
    spectrum = torch.fft.rfft(audio, size) * torch.fft.rfft(torch.from_numpy(response).to(audio), size)
    return torch.fft.irfft(spectrum, size)[:, : audio.shape[1]]


def limit_band(audio: torch.Tensor, hertz: float) -> torch.Tensor:
    spectrum = torch.fft.rfft(audio)
    frequencies = torch.linspace(0, SAMPLE_RATE / 2, spectrum.shape[1], device=audio.device)
    return torch.fft.irfft(spectrum / (1 + (frequencies / hertz) ** 8), audio.shape[1])


def add_noise(audio: torch.Tensor, decibels: float, colour: float) -> torch.Tensor:
    """White (`colour` 0) to pink (1) noise, `decibels` below the speech."""
    spectrum = torch.fft.rfft(torch.randn_like(audio))
    colours = torch.arange(spectrum.shape[1], device=audio.device).clamp(min=1) ** (-colour / 2)
    noise = torch.fft.irfft(spectrum * colours, audio.shape[1])
    power = audio.square().mean(1, keepdim=True) / noise.square().mean(1, keepdim=True)
    return audio + noise * power.sqrt() * 10 ** (-decibels / 20)


def nothing_said(generator: numpy.random.Generator, samples: int) -> numpy.ndarray:
    """Noise of any colour, hum of any mains, a level that drifts by up to 20 dB: int16, and nobody speaks."""
    time = numpy.arange(samples) / SAMPLE_RATE
    spectrum = numpy.fft.rfft(generator.standard_normal(samples))
    noise = numpy.fft.irfft(spectrum / numpy.maximum(20, numpy.arange(len(spectrum))) ** generator.uniform(0, 1), samples)
    noise /= noise.std() + 1e-9
    hertz = generator.choice((50, 60)) * generator.uniform(0.99, 1.01)
    for harmonic in range(1, int(generator.integers(1, 12))):
        noise += generator.exponential(0.5) * numpy.sin(2 * numpy.pi * hertz * harmonic * time + generator.uniform(0, 6)) / harmonic
    drift = generator.uniform(-10, 10) * numpy.sin(2 * numpy.pi * time / generator.uniform(3, 30) + generator.uniform(0, 6))
    return (32768 * noise * 10 ** ((generator.uniform(-65, -20) + drift) / 20)).clip(-32768, 32767).astype(numpy.int16)
