/* A capture device of ALSA that gives silence and then does what the configuration says, as a device does that is in use or is
 * unplugged:
 *
 *     pcm_type.faulty { lib "FILE.so" }
 *     pcm.NAME { type faulty open_error 16 }          opening fails with this errno (16: busy)
 *     pcm.NAME { type faulty lasts_ms 500 path FILE } recording ends after half a second; while FILE exists, opening fails with
 *                                                     ENODEV, and the device makes FILE when it ends
 *     pcm.NAME { type faulty overrun_ms 500 }         once, after half a second, samples are lost
 *
 * It offers 16 kHz, one channel, 16 bits and nothing else. */
#include <alsa/asoundlib.h>
#include <alsa/pcm_external.h>
#include <sys/timerfd.h>

enum { RATE = 16000 };

struct faulty {
    snd_pcm_ioplug_t plug;
    long lasts_ms;
    long overrun_ms;
    char path[256];
    int gone;
    struct timespec begun;
};

static long elapsed_ms(const struct faulty *device)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (now.tv_sec - device->begun.tv_sec) * 1000 + (now.tv_nsec - device->begun.tv_nsec) / 1000000;
}

static int start(snd_pcm_ioplug_t *plug)
{
    clock_gettime(CLOCK_MONOTONIC, &((struct faulty *)plug->private_data)->begun);
    return 0;
}

/* After an error the device is prepared again, which fails once it has gone. */
static int prepare(snd_pcm_ioplug_t *plug)
{
    const struct faulty *device = plug->private_data;
    return device->gone ? -ENODEV : 0;
}

static int stop(snd_pcm_ioplug_t *plug)
{
    (void)plug;
    return 0;
}

static snd_pcm_sframes_t pointer(snd_pcm_ioplug_t *plug)
{
    struct faulty *device = plug->private_data;
    long now = elapsed_ms(device);
    if (device->lasts_ms > 0 && now > device->lasts_ms) {
        /* Once only: it may be plugged in again while nobody has closed this device yet. */
        FILE *file = device->path[0] && !device->gone ? fopen(device->path, "w") : NULL;
        if (file)
            fclose(file);
        device->gone = 1;
        return -ENODEV;
    }
    if (device->overrun_ms > 0 && now > device->overrun_ms) {
        device->overrun_ms = 0;
        return -EPIPE;
    }
    return (snd_pcm_sframes_t)(now * (RATE / 1000) % plug->buffer_size);
}

static snd_pcm_sframes_t transfer(snd_pcm_ioplug_t *plug, const snd_pcm_channel_area_t *areas, snd_pcm_uframes_t offset,
                                  snd_pcm_uframes_t size)
{
    snd_pcm_areas_silence(areas, offset, plug->channels, size, plug->format);
    return (snd_pcm_sframes_t)size;
}

static int close_device(snd_pcm_ioplug_t *plug)
{
    close(plug->poll_fd);
    free(plug->private_data);
    return 0;
}

static const snd_pcm_ioplug_callback_t CALLBACKS = {
    .prepare = prepare, .start = start, .stop = stop, .pointer = pointer,
    .transfer = transfer, .close = close_device,
};

SND_PCM_PLUGIN_DEFINE_FUNC(faulty)
{
    (void)root;
    long open_error = 0;
    struct faulty *device = calloc(1, sizeof *device);
    snd_config_iterator_t entry, next;
    snd_config_for_each(entry, next, conf)
    {
        snd_config_t *node = snd_config_iterator_entry(entry);
        const char *id, *text;
        if (snd_config_get_id(node, &id) < 0)
            continue;
        if (!strcmp(id, "open_error"))
            snd_config_get_integer(node, &open_error);
        else if (!strcmp(id, "lasts_ms"))
            snd_config_get_integer(node, &device->lasts_ms);
        else if (!strcmp(id, "overrun_ms"))
            snd_config_get_integer(node, &device->overrun_ms);
        else if (!strcmp(id, "path") && !snd_config_get_string(node, &text))
            snprintf(device->path, sizeof device->path, "%s", text);
    }
    if (device->path[0] && !access(device->path, F_OK))
        open_error = ENODEV;
    if (open_error || stream != SND_PCM_STREAM_CAPTURE) {
        free(device);
        return open_error ? (int)-open_error : -EINVAL;
    }
    device->plug.version = SND_PCM_IOPLUG_VERSION;
    device->plug.name = "a device that fails";
    device->plug.callback = &CALLBACKS;
    device->plug.private_data = device;
    device->plug.poll_events = POLLIN;
    device->plug.poll_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct itimerspec period = { { 0, 10000000 }, { 0, 10000000 } };
    timerfd_settime(device->plug.poll_fd, 0, &period, NULL);
    int failed = snd_pcm_ioplug_create(&device->plug, name, stream, mode);
    if (failed < 0)
        return failed;
    static const unsigned accesses[] = { SND_PCM_ACCESS_RW_INTERLEAVED }, formats[] = { SND_PCM_FORMAT_S16_LE };
    snd_pcm_ioplug_set_param_list(&device->plug, SND_PCM_IOPLUG_HW_ACCESS, 1, accesses);
    snd_pcm_ioplug_set_param_list(&device->plug, SND_PCM_IOPLUG_HW_FORMAT, 1, formats);
    snd_pcm_ioplug_set_param_minmax(&device->plug, SND_PCM_IOPLUG_HW_CHANNELS, 1, 1);
    snd_pcm_ioplug_set_param_minmax(&device->plug, SND_PCM_IOPLUG_HW_RATE, RATE, RATE);
    snd_pcm_ioplug_set_param_minmax(&device->plug, SND_PCM_IOPLUG_HW_PERIOD_BYTES, 64, 1 << 16);
    snd_pcm_ioplug_set_param_minmax(&device->plug, SND_PCM_IOPLUG_HW_BUFFER_BYTES, 256, 1 << 18);
    snd_pcm_ioplug_set_param_minmax(&device->plug, SND_PCM_IOPLUG_HW_PERIODS, 2, 1024);
    *pcmp = device->plug.pcm;
    return 0;
}

SND_PCM_PLUGIN_SYMBOL(faulty);
