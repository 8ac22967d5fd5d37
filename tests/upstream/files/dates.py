"""The library for time, and a plugin of one's own with its Python side."""

import michelangelo.uniflow.core as uniflow
from michelangelo.uniflow.core.lib.time import datestr, sleep, time, utc_format_seconds


@uniflow.star_plugin("strings.shout")
def shout(text: str) -> str:
    return text.upper() + "!"


@uniflow.task()
def partition(day: str) -> str:
    return f"date={day}"


@uniflow.workflow()
def dates_workflow():
    start = time()
    sleep(0.01)
    yesterday = datestr(-1)
    return {
        "slept": time() - start >= 0.01,
        "partition": partition(yesterday) == "date=" + utc_format_seconds("%Y-%m-%d", start - 86400),
        "epoch": utc_format_seconds("%H:%M:%S", 3661),
        "shout": shout("done"),
    }


if __name__ == "__main__":
    ctx = uniflow.create_context()
    print(ctx.run(dates_workflow))
