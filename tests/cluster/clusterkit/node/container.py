"""One container: a process, started again as its pod wants it, asked by its probes, ended in order."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from clusterkit.api import UNREACHABLE, ApiError, Object
from clusterkit.node import probes, spec
from clusterkit.node.process import Deadline, Process
from clusterkit.node.settings import PATH
from clusterkit.node.site import Site, Tell
from clusterkit.node.sources import NotThere, Sources
from clusterkit.node.status import ContainerStatus, stamp, waiting
from clusterkit.processes import tail

MESSAGE_LINES, MESSAGE_BYTES = 80, 2048
"""So much of a log's end becomes the message of a failed container."""
AFTER_HOOK_S = 2.0
"""What a container has left for its SIGTERM however long its preStop hook took."""
_START_FAILED = 128


class Container:
    """`run` is its life; `stop` and `kill` end its process from outside and do not wait for `run`."""

    def __init__(
        self,
        wanted: Object,
        sources: Sources,
        site: Site,
        folder: Path,
        *,
        tell: Tell,
        changed: asyncio.Event,
        init: bool = False,
    ) -> None:
        self.name: str = wanted["name"]
        self.spec = wanted
        self.volumes: Mapping[str, Path] = {}
        """Set before it runs."""
        self.status = ContainerStatus(self.name, wanted["image"], waiting("PodInitializing"))
        self._sources = sources
        self._site = site
        self._folder = folder
        self._tell = tell
        self._changed = changed
        self._init = init
        self._env: dict[str, str] = {}
        self._process: Process | None = None
        self._stopping = False
        self._fate = ""
        self._crashes = 0
        folder.mkdir(parents=True)

    @property
    def log(self) -> Path:
        """The log of the present process."""
        return self._folder / f"{self.status.restarts}.log"

    @property
    def pid(self) -> int:
        """Raises LookupError while nothing runs."""
        if self._process is None or self._process.ended.is_set():
            raise LookupError(f"container {self.name} does not run: {self.status.state}")
        return self._process.pid

    async def run(self) -> int:
        """Run until an end that the restart policy accepts; return its exit code."""
        while True:
            command = await self._prepare()
            await self._site.powered.wait()
            if self._stopping:
                return _START_FAILED
            code = await self._once(command)
            if self._stopping or not self._again(code):
                return code
            await self._pause()

    async def stop(self, deadline: Deadline) -> None:
        """preStop hook, SIGTERM, and SIGKILL at the deadline. It is not started again."""
        self._stopping = True
        if self._process is None:
            return
        hook = self.spec.get("lifecycle", {}).get("preStop")
        if hook is not None and not self._process.ended.is_set():
            await self._pre_stop(hook, deadline)
        await self._process.end(deadline)

    def kill(self, fate: str = "", *, again: bool = True) -> None:
        """SIGKILL. `fate` is the reason that is told, instead of Error; without `again` it is not started again."""
        self._stopping = self._stopping or not again
        self._fate = fate
        if self._process is not None:
            self._process.kill()

    async def dead(self) -> None:
        """Wait until no process of it is left."""
        if self._process is not None:
            await self._process.ended.wait()

    def send(self, number: signal.Signals) -> None:
        """Send the process a signal, without any further intent."""
        if self._process is not None:
            self._process.send(number)

    # --- before it runs

    async def _prepare(self) -> list[str]:
        """Wait until everything is there that the container needs; return its command."""
        tries = 0
        while True:
            await self._site.connected.wait()
            try:
                return await self._command()
            except _NoImage as error:
                self._set_waiting("ImagePullBackOff" if tries else "ErrImagePull", str(error))
                self._tell("BackOff" if tries else "Failed", str(error))
            except NotThere as error:
                self._set_waiting("CreateContainerConfigError", str(error))
                self._tell("Failed", str(error))
            except (*UNREACHABLE, ApiError):
                pass  # the API server is not there: a kubelet waits too
            tries += 1
            await asyncio.sleep(self._site.times.pull)

    async def _command(self) -> list[str]:
        """Raises NotThere, _NoImage and Unsupported."""
        image = self._site.images.get(self.spec["image"])
        if image is None:
            raise _NoImage(f'failed to pull and unpack image "{self.spec["image"]}": not found')
        paths = self._paths()
        base = {
            "PATH": PATH,
            "HOME": str(self._folder),
            "HOSTNAME": self._sources.pod["metadata"]["name"],
            "TMPDIR": paths.get("/tmp", str(self._folder)),
            **image.env,
        }
        env = await self._sources.environment(self.spec, base)
        address = self._sources.address
        # What we said ourselves is true already; a mount at /tmp would make nonsense of it.
        self._env = {
            key: value if base.get(key) == value else spec.relocate(value, paths, address) for key, value in env.items()
        }
        own = self.spec.get("command", [])
        given = [spec.relocate(spec.expand(text, env), paths, address) for text in (*own, *self.spec.get("args", []))]
        return given if own else [*image.entrypoint, *given]

    def _paths(self) -> dict[str, str]:
        """Return where each path of the container is on this machine."""
        found = {self.spec.get("terminationMessagePath", "/dev/termination-log"): str(self._message_file)}
        for mount in self.spec.get("volumeMounts", []):
            folder = self.volumes[mount["name"]]
            found[mount["mountPath"].rstrip("/")] = str(folder / mount["subPath"] if "subPath" in mount else folder)
        return found

    @property
    def _message_file(self) -> Path:
        return self._folder / "termination-log"

    def _set_waiting(self, reason: str, message: str) -> None:
        if "terminated" in self.status.state:
            self.status.last = self.status.state
        self.status.state = waiting(reason, message)
        self._changed.set()

    # --- while it runs

    async def _once(self, command: list[str]) -> int:
        status = self.status
        if status.has_run:
            status.last = status.state if "terminated" in status.state else status.last
            status.restarts += 1
        began = datetime.now(UTC)
        status.id = f"standin://{self._sources.pod['metadata']['uid']}/{self.name}/{status.restarts}"
        try:
            self._process = process = Process(command, env=self._env, folder=self._folder, log=self.log)
        except OSError as error:
            return self._ended(_START_FAILED, began, "StartError", str(error))
        status.state = {"running": {"startedAt": stamp(began)}}
        self._changed.set()
        probing = asyncio.create_task(self._probe(process))
        try:
            await process.ended.wait()
        finally:
            process.kill()
            await process.ended.wait()
            probing.cancel()
        with suppress(asyncio.CancelledError):
            await probing
        code = process.exit_code
        fate, self._fate = self._fate, ""
        return self._ended(code, began, fate or ("Error" if code else "Completed"), self._last_words(code))

    def _ended(self, code: int, began: datetime, reason: str, message: str) -> int:
        now = datetime.now(UTC)
        if (now - began).total_seconds() > 2 * self._site.times.crash_most:
            self._crashes = 0
        self.status.state = {
            "terminated": {
                "exitCode": code,
                "reason": reason,
                "message": message or None,
                "startedAt": stamp(began),
                "finishedAt": stamp(now),
                "containerID": self.status.id,
            }
        }
        self.status.started = False
        self.status.ready = self._init and code == 0
        self._changed.set()
        return code

    def _last_words(self, code: int) -> str:
        with suppress(FileNotFoundError):
            if said := self._message_file.read_text(errors="replace"):
                self._message_file.unlink()
                return said[:MESSAGE_BYTES]
        from_log = self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError"
        return tail(self.log, MESSAGE_LINES)[-MESSAGE_BYTES:] if code and from_log else ""

    def _again(self, code: int) -> bool:
        policy = self._sources.pod["spec"].get("restartPolicy", "Always")
        if policy == "Always" and not self._init:
            return True
        return policy != "Never" and code != 0

    async def _pause(self) -> None:
        """Wait before the next start: not at all the first time, then twice as long each time."""
        self._crashes += 1
        if self._crashes > 1:
            times = self._site.times
            pause_s = min(times.crash_first * 2 ** (self._crashes - 2), times.crash_most)
            pod = self._sources.pod["metadata"]
            message = f"back-off {pause_s:g}s restarting failed container={self.name} pod={pod['name']}"
            self._set_waiting("CrashLoopBackOff", message)
            self._tell("BackOff", message)
            await asyncio.sleep(pause_s)

    # --- probes and hooks

    async def _probe(self, process: Process) -> None:
        """Ask the startup probe to its success, then the others until the process has ended."""
        await asyncio.sleep(self._site.times.notice)
        if "startupProbe" in self.spec:
            await self._repeat("startupProbe", process)
        self.status.started = True
        self.status.ready = not self._init and "readinessProbe" not in self.spec
        self._changed.set()
        await asyncio.gather(
            *(self._repeat(kind, process) for kind in ("livenessProbe", "readinessProbe") if kind in self.spec)
        )

    async def _repeat(self, kind: str, process: Process) -> None:
        probe = self.spec[kind]

        async def once() -> str:
            return await probes.ask(probe, self.spec, self._sources.address, self._site.http, self._exec)

        def heard(problem: str, streak: probes.Streak) -> bool:
            enough = streak.add(not problem)
            if problem:
                self._tell("Unhealthy", f"{kind.removesuffix('Probe').capitalize()} probe failed: {problem}")
            if kind == "readinessProbe":
                if self.status.ready != streak.verdict:
                    self.status.ready = streak.verdict
                    self._changed.set()
                return False
            return enough and (kind == "startupProbe" or bool(problem))

        failed = not await probes.repeat(probe, once, heard)
        if failed and not self._stopping:
            self._tell("Killing", f"Container {self.name} failed {kind.removesuffix('Probe')} probe, will be restarted")
            grace = probe.get("terminationGracePeriodSeconds", spec.seconds_of_grace(self._sources.pod))
            await process.end(Deadline(grace))

    async def _pre_stop(self, hook: Object, deadline: Deadline) -> None:
        done = asyncio.Event()
        running = asyncio.create_task(self._hook(hook))
        running.add_done_callback(lambda _: done.set())
        await deadline.wait(done)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        deadline.extend(AFTER_HOOK_S)

    async def _hook(self, hook: Object) -> None:
        if "exec" in hook:
            await self._exec(hook["exec"]["command"], None)
        elif "sleep" in hook:
            await asyncio.sleep(hook["sleep"]["seconds"])
        else:
            await probes.http_get(hook["httpGet"], self.spec, self._sources.address, self._site.http)

    async def _exec(self, command: list[str], timeout_s: float | None) -> int:
        """Run a command as `kubectl exec` would: the container's environment and folder, a process of its own."""
        paths, address = self._paths(), self._sources.address
        here = [spec.relocate(text, paths, address) for text in command]
        try:
            process = Process(here, env=self._env, folder=self._folder, log=self._folder / "exec.log")
        except OSError:
            return _START_FAILED
        try:
            async with asyncio.timeout(timeout_s):
                await process.ended.wait()
        except TimeoutError:
            return _START_FAILED
        finally:
            process.kill()
            await process.ended.wait()
        return process.exit_code


class _NoImage(Exception):
    """The node knows no such image."""
