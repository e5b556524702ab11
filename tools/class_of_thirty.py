"""A class of thirty, six of them hostile, graded by one command: measures how long that takes, and what it leaves.

The honest ones hand in the reference, the released copy, and the wrong answers of the set; four of them are careless:
a broken file, none at all, deleted cells, edited tests. The hostile ones try to loop, crash, fork, fill the disk, read
the course, reach the network and write outside; what they managed, they tell in their output, and a watch over the
folders and a listening socket tell whether it is true.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from datetime import date
from importlib import metadata
from pathlib import Path

from stepsize.course import sets
from stepsize.course.folder import Course, records

# Each stands in the answer cell of the first task, after a right answer: what it breaks is its own mark.
HOSTILE = {
    "endless-loop": "while True:\n    try:\n        pass\n    except BaseException:\n        pass",
    "ends-python": "import os\nos._exit(0)",
    "fork-bomb": (
        "import os, time\nwhile True:\n    try:\n        if os.fork() == 0:\n            time.sleep(0)\n"
        "    except OSError:\n        time.sleep(0.01)"
    ),
    "fills-disk-and-memory": (
        "try:\n    for k in range(1000):\n        open(f'{k}', 'wb').write(b'x' * 2**22)\n"
        "except OSError as error:\n    print('disk:', error)\n"
        "kept = []\nwhile True:\n    kept.append(bytearray(b'x') * 2**27)"
    ),
    "spies-and-escapes": """
import os, socket
told = []
for path in {paths!r}:
    try:
        told.append(('READ', path, os.listdir(path) if os.path.isdir(path) else open(path, 'rb').read(20)))
    except OSError:
        pass
for folder in {folders!r}:
    try:
        open(os.path.join(folder, 'pwned'), 'w').write('x')
        told.append(('WROTE', folder))
    except OSError:
        pass
for address in [('127.0.0.1', {port}), ('1.1.1.1', 53)]:
    try:
        socket.create_connection(address, timeout=2)
        told.append(('CONNECTED', address))
    except OSError:
        pass
print('told:', told)
print('x' * 100_000_000)
""",
    "forges-marks": """
import builtins, json, sys, torch
torch.allclose = torch.equal = lambda *_, **__: True
builtins.abs = builtins.max = lambda *_: 0
json.dumps = lambda *_, **__: '{{"error": null, "outputs": []}}'
class Always(float):
    __eq__ = __le__ = __lt__ = __gt__ = __ge__ = lambda *_: True
sys.settrace(None)
""",
}


def submissions(one: sets.ExerciseSet, course: Path, port: int, size: int) -> dict[str, dict[str, object] | None]:
    """The notebooks of the class by student: the last six hostile."""
    first = next(iter(one.solutions))
    paths = [
        str(course),
        str(course / "gradebook.db"),
        str(course / "source"),
        str(one.path),
        str(Path.home() / ".ssh"),
    ]
    folders = [
        str(course),
        str(course / "submitted"),
        str(Path.home()),
        "/",
        "/usr/bin",
        str(Path(sets.__file__).parent),
    ]
    deleted, edited = one.submission({}), one.submission({})
    deleted["cells"] = deleted["cells"][::3]
    for cell in edited["cells"]:
        if sets.marks(cell).get("grade_id", "").startswith("test-"):
            cell["source"] = "pass"
    made: dict[str, dict[str, object] | None] = {
        "careless-broken": {"cells": "lost"},
        "careless-missing": None,
        "careless-deleted": deleted,
        "careless-edited": edited,
    }
    honest = [one.solutions, {}, *(one.solutions | {wrong.task: wrong.text} for wrong in one.wrong_answers)]
    for index in range(size - len(HOSTILE) - len(made)):
        made[f"student-{index + 1:02}"] = one.submission(honest[index % len(honest)])
    for name, text in HOSTILE.items():
        deed = (
            text.format(paths=paths, folders=folders, port=port)
            if name in ("spies-and-escapes", "forges-marks")
            else text
        )
        answer = one.skeleton[first] if name == "forges-marks" else one.solutions[first]
        made[f"hostile-{name}"] = one.submission(one.solutions | {first: f"{answer}\n\n{deed}"})
    return made


def state(folder: Path) -> dict[str, str]:
    """Every file below a folder with a hash of what it holds."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def classroom(name: str, folder: Path, size: int, workers: int) -> dict[str, object]:
    """Release, hand in, grade by one command, and look at what is there afterwards."""
    one, load = sets.find(name), os.getloadavg()[0]
    command = [sys.executable, "-m", "stepsize.cli", "course"]
    subprocess.run([*command, "release", one.name, "--course", str(folder)], check=True, stdout=subprocess.DEVNULL)
    callers: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    callers.append(server.accept()[1])
                except OSError:
                    return

        threading.Thread(target=answer, daemon=True).start()
        for student, notebook in submissions(one, folder, server.getsockname()[1], size).items():
            path = folder / "submitted" / student / one.name / f"{one.name}.ipynb"
            path.parent.mkdir(parents=True)
            if notebook:
                path.write_text(json.dumps(notebook))
        before = state(folder / "submitted")
        outside = {path: sorted(os.listdir(path)) for path in (str(Path.home()), "/", "/usr/bin", str(folder.parent))}
        start = time.monotonic()
        grade = [*command, "grade", one.name, "--course", str(folder), "--workers", str(workers)]
        done = subprocess.run(grade, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - start
    print(done.stdout, done.stderr, sep="")
    found = {record.student: record for record in records(Course(folder), one.name)}
    print_of_spy = (folder / "autograded/hostile-spies-and-escapes" / one.name / f"{one.name}.ipynb").read_text()
    first = one.tasks[0]
    return {
        "set": one.name,
        "exit": done.returncode,
        "submissions": len(found),
        "hostile": len(HOSTILE),
        "seconds": round(seconds, 1),
        "seconds_each": round(sum(record.seconds for record in found.values()) / max(1, len(found)), 1),
        "workers": workers,
        "marked": sum(all(task.mark is not None or task.by_hand for task in record.tasks) for record in found.values()),
        "explained": sum(bool(record.sentence) for record in found.values()),
        "marks": {s: r.total for s, r in found.items() if not s.startswith("student-")},
        "sentences": {s: r.sentence for s, r in found.items() if not s.startswith("student-")},
        "forged": sum(record.tasks[0].mark == first.points for s, record in found.items() if "forges" in s),
        "files_changed": sorted(set(before.items()) ^ set(state(folder / "submitted").items())),
        "names_added_outside": [p for p, names in outside.items() if sorted(os.listdir(p)) != names],
        "connections": len(callers),
        "spy_found_nothing": "told: []" in print_of_spy,
        "made": {
            "date": date.today().isoformat(),
            "processors": os.cpu_count(),
            "busy_with": round(load, 1),
            "python": platform.python_version(),
            "nbgrader": metadata.version("nbgrader"),
            "torch": metadata.version("torch"),
            "bubblewrap": subprocess.run(
                ["bwrap", "--version"], capture_output=True, text=True, check=True
            ).stdout.strip(),
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("set", nargs="?", default="01", help="which set (default 01)")
    parser.add_argument("--size", type=int, default=30, help="how many students (default 30)")
    parser.add_argument("--workers", type=int, default=2, help="submissions at once (default 2)")
    parser.add_argument("-o", "--output", type=Path, help="write the record here")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="classroom-"))
    try:
        record = classroom(given.set, folder / "course", given.size, given.workers)
    finally:
        shutil.rmtree(folder)
    text = json.dumps(record, indent=1, ensure_ascii=False)
    print(text)
    if given.output:
        given.output.write_text(text + "\n", "utf-8")
    good = record["exit"] == 0 and record["submissions"] == record["marked"] == record["explained"] == given.size
    kept = not record["files_changed"] and not record["names_added_outside"] and not record["connections"]
    return 0 if good and kept and record["spy_found_nothing"] and not record["forged"] else 1


if __name__ == "__main__":
    sys.exit(main())
