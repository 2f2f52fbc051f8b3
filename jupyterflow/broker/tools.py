"""Kafka's own console tools, from the same jars as the broker."""

import subprocess

from jupyterflow.broker._aot import archive
from jupyterflow.broker._install import command, environment, install
from jupyterflow.model import FlowError, FlowTimeout

CONSUMER = "org.apache.kafka.tools.consumer.ConsoleConsumer"
PRODUCER = "org.apache.kafka.tools.ConsoleProducer"
TOPICS = "org.apache.kafka.tools.TopicCommand"
GROUPS = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
OFFSETS = "org.apache.kafka.tools.GetOffsetShell"


def console(
    main_class: str, *args: str, input: str | bytes | None = None, timeout: float = 60.0
) -> "subprocess.CompletedProcess[str]":
    """Run the console tool *main_class* with *args*; returns its exit code and what it wrote, as UTF-8 text.

    *input* is what it reads from its standard input. A tool that fails is not an error here: look at
    `returncode` and `stderr`. Raises `FlowTimeout` JF507 after *timeout* seconds, `FlowError` JF502 if
    Kafka's jars cannot be had.
    """
    jars = install()
    cache = archive(jars, lambda text: None)
    jvm: tuple[str, ...] = ("-Xmx256m", "-XX:TieredStopAtLevel=1", "-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8")
    if cache:
        jvm = (*jvm, f"-XX:AOTCache={cache}", "-Xlog:aot*=off")
    given = input.encode() if isinstance(input, str) else input
    try:
        done = subprocess.run(
            command(jars, main_class, *args, jvm=jvm), input=given or b"", capture_output=True,
            env=environment(), timeout=timeout,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise FlowTimeout("JF507", f"{main_class} took over {timeout:g} s") from error
    except OSError as error:
        raise FlowError("JF504", f"Java did not start: {error}") from error
    out, err = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)
