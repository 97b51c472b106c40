"""The surface as a user types it. Never run, only type-checked: by mypy and pyright, both strict.

`assert_type` pins what a name gives; the rest shows that ordinary code needs no cast and no annotation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Literal, assert_type

import nexcage
from nexcage import names, oci
from nexcage.abc import Asked, Backend, Candidate, Health, Hooks, Node, Placement, Ref, Sink, Transport, Verb
from nexcage.testing import (
    Aftermath,
    CrashDisk,
    Death,
    Fate,
    FaultyDisk,
    History,
    SimCluster,
    Sweep,
    check_backend,
    every_crash,
    explore,
)
from nexcage.tools import config, editing, pct, runtime, values, zfs
from nexcage.tools.health import Check
from nexcage.tools.pvesm import Volume


def words_of_pct() -> None:
    net = values.Net.parse("name=eth0,ip=dhcp", strict=True)
    assert_type(net, values.Net)
    settings = pct.Settings(memory=512, nets={0: net}, startup=values.Startup(order=1))
    assert_type(pct.set_(104, settings, delete=("tags",)), nexcage.Command[None])
    assert_type(pct.list_(), nexcage.Command[tuple[pct.Row, ...]])
    assert_type(pct.config(104), nexcage.Command[config.Config])
    assert_type(pct.Settings.read(config.parse("memory: 512")), pct.Settings)
    assert_type(pct.df(104), nexcage.Command[tuple[pct.Usage, ...]])
    assert_type(editing.edited("", {"tags": "a"}), str)
    assert_type(values.size_bytes("8G"), int)


def documents(data: bytes) -> None:
    read = oci.decode_config(data, max_bytes=1 << 20)
    assert_type(read, oci.Decoded[oci.Config])
    assert_type(read.warnings, tuple[oci.Notice, ...])
    assert_type(read.untaken, tuple[oci.Notice, ...])
    if read.document.process:
        assert_type(read.document.process.args, tuple[str, ...])
    if read.document.linux.seccomp:
        assert_type(read.document.linux.seccomp, oci.Seccomp)
    assert_type(oci.decode_process(data).document, oci.Process)
    assert_type(oci.decode_resources(data).document, oci.Resources)
    assert_type(oci.decode_state(data).document, oci.ContainerState)
    assert_type(oci.decode_features(data).document, oci.Features)
    assert_type(oci.decode_layout(data).document, oci.ImageLayout)
    assert_type(oci.decode_index(data).document, oci.ImageIndex)
    assert_type(oci.decode_manifest(data).document.layers, tuple[oci.Descriptor, ...])
    assert_type(oci.decode_image_config(data).document, oci.ImageConfig)
    assert_type(oci.Linux().namespaces == (), bool)


async def one_container() -> None:
    async with nexcage.open_fleet() as fleet:
        assert_type(fleet, nexcage.Fleet)
        web = fleet["web-1"]
        assert_type(web, nexcage.Container)
        made = await web.create(nexcage.Spec(image="debian:12", memory=512, swap=0, cores=2, tags=("web",)))
        assert_type(made, nexcage.Done)
        assert_type(made.vmid, int)
        assert_type(await web.start(), nexcage.Done)
        assert_type(await web.state(), nexcage.OciState)
        assert_type(await web.wait("running", nexcage.State.STOPPED, timeout=10), nexcage.State)
        assert_type(web.machine, nexcage.Machine)
        assert_type(web.machine.state, nexcage.State)
        await web.kill("HUP")
        await web.kill(9, op_id="kill-1")
        await web.pause()
        await web.resume()
        await web.stop(timeout=30)
        await web.stop(force=True)
        assert_type(await web.reconcile(), nexcage.Difference | None)
        await web.delete(force=True, purge=True)


async def inside(web: nexcage.Container, fleet: nexcage.Fleet) -> None:
    done = await web.exec(
        ["id", b"-u"], stdin=b"", env={"A": "b"}, cwd="/tmp", user="www-data", timeout=5, op_id="id-1"
    )
    assert_type(done, nexcage.Executed)
    assert_type((done.exit, done.stdout, done.repeated), tuple[int, bytes, bool])
    async with web.exec_stream(["sh"], size=(24, 80)) as stream:
        assert_type(stream, nexcage.ExecStream)
        await stream.send(b"exit\n")
        await stream.resize(50, 120)
        async for kind, data in stream:
            assert_type(kind, Literal["stdout", "stderr"])
            assert_type(data, bytes)
        assert_type(await stream.wait(), nexcage.Executed)
    assert_type(nexcage.Config(contents=nexcage.ContentsConfig(cache=5)).contents.entries, int)
    assert_type(nexcage.Spec("./layout", content=nexcage.Content(f"sha256:{0:064}")).content, nexcage.Content | None)
    assert_type(await web.push(Path("/etc/hosts"), "/etc/hosts", mode=0o644, owner="root:root"), nexcage.Copied)
    assert_type(await web.pull("/etc/hosts", "/tmp/hosts"), nexcage.Copied)
    assert_type(await web.ps(), tuple[nexcage.Process, ...])
    assert_type(await web.addresses(), nexcage.Addresses)
    assert_type(await web.wait_ready(port=80, command=["true"], timeout=60), nexcage.Addresses)
    async with web.logs(lines=10, follow=True) as lines:
        assert_type(await anext(lines), bytes)
    assert_type(await fleet.stats("tag=web"), list[nexcage.Stats])
    assert_type(await fleet.addresses(), dict[str, nexcage.Addresses])
    assert_type(nexcage.Exec("web-1", argv=("true",)).argv, tuple[str, ...])
    assert_type(nexcage.Push("web-1", path="/etc/hosts").size, int)


async def many(bar: list[str]) -> None:
    spec = nexcage.Spec(image="local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst", nets=(nexcage.Net(ip="dhcp"),))
    said = nexcage.Spec(
        "debian:12", mounts={"mp0": "local:8,mp=/data"}, features="nesting=1", cpulimit=1.5, protection=True
    )
    assert_type(said.mounts, Mapping[str, str])
    assert_type(nexcage.Spec("./nginx", backend="lxc", gate=True).gate, bool)
    assert_type(said.nameserver, tuple[str, ...])
    vm = nexcage.Spec(image="local:import/noble.qcow2", backend="vm", vm=nexcage.Vm(user="ada", agent=True, cpu="host"))
    assert_type(vm.vm, nexcage.Vm | None)
    hosts = nexcage.hosts("pve-[01-50].lan")
    assert_type(hosts, tuple[str, ...])
    limits = nexcage.Limits(total=200, per_node=8)
    async with nexcage.open_fleet(hosts, limits=limits, state_dir=Path("/tmp/state"), strict_oci=True) as fleet:
        wanted = [nexcage.Create(f"web-{n:04}", spec) for n in range(1000)]
        async with fleet.stream(wanted) as outcomes:
            async for outcome in outcomes:
                match outcome:
                    case nexcage.Done(op=op, node=node, seconds=seconds):
                        assert_type(op, nexcage.Op)
                        bar.append(f"{op} on {node}: {seconds:.1f} s")
                    case nexcage.Failure(error=error):
                        assert_type(error, nexcage.NexcageError)
                        bar.append(str(error))
        report = await fleet.run(nexcage.Start(intent.id) for intent in wanted)
        assert_type(report, nexcage.Report)
        assert_type(report.lost_nodes, set[str])
        assert_type(report.done, tuple[nexcage.Done, ...])
        assert_type(report[0], nexcage.Done | nexcage.Failure)
        again = [failure.intent for failure in report.failures if isinstance(failure.error, nexcage.NodeError)]
        await fleet.run(again)
        report.raise_for_failures()
        assert_type(await fleet.do(nexcage.Stop("web-0001", timeout=5)), nexcage.Done)
        assert_type(await fleet.find("104"), str)
        assert_type(fleet.select("tag=web node=pve-0* state=stopped id~^web-"), list[str])
        assert_type(await fleet.reconcile(), list[nexcage.Difference])
        assert_type(await fleet.watch("pve-01"), None)
        assert_type(await fleet.doctor(repair=True), list[nexcage.Finding])
        assert_type(await fleet.images("pve-01"), dict[str, tuple[nexcage.Image, ...] | nexcage.NexcageError])
        assert_type(await fleet.available(), dict[str, tuple[nexcage.Template, ...] | nexcage.NexcageError])
        assert_type(await fleet.pull("nginx:1.29", storage="local"), dict[str, nexcage.Image | nexcage.NexcageError])
        assert_type(await fleet.push_image("./nginx", storage="local"), dict[str, nexcage.Image | nexcage.NexcageError])
        assert_type(await fleet.rmi("nginx:1.29", "pve-01"), dict[str, bool | nexcage.NexcageError])
        assert_type(await fleet.rebuild("web-1", aside=("web-1",)), list[nexcage.Finding])
        assert_type(fleet.machines, Mapping[str, nexcage.Machine])
        for key, seen in (await fleet.look()).items():
            assert_type(key, str)
            if isinstance(seen, nexcage.Look):
                assert_type(seen.boot_id, str)
            else:
                assert_type(seen, nexcage.NexcageError)


async def events(fleet: nexcage.Fleet) -> None:
    async with fleet.events.subscribe(since=fleet.seq, ids=["web-1"]) as events:
        try:
            async for event in events:
                match event:
                    case nexcage.Succeeded(op=nexcage.Op.START, id=id, pid=pid):
                        assert_type(id, str)
                        assert_type(pid, int)
                    case nexcage.Failed(id=_, error=error):
                        assert_type(error, nexcage.Problem)
                        assert_type(error.error(), nexcage.NexcageError)
                    case _:
                        assert_type(event.seq, int)
        except nexcage.Lagged:
            return


async def journals() -> None:
    machines = nexcage.fold(nexcage.read_journal(Path("/var/lib/nexcage")))
    assert_type(machines, dict[str, nexcage.Machine])
    async for event in nexcage.follow("/var/lib/nexcage", since=0):
        assert_type(event.at, float)


def bundles() -> None:
    plan = nexcage.plan_bundle("/srv/bundle", backend="crun", allow=["/linux/intelRdt"])
    assert_type(plan, nexcage.BundlePlan)
    assert_type(plan.accepted, bool)
    assert_type([entry.pointer for entry in plan.refused], list[str])


async def errors(fleet: nexcage.Fleet) -> None:
    try:
        await fleet["web-1"].delete()
    except nexcage.BundleRefused as error:
        assert_type((error.bundle, error.where), tuple[str, str])
        assert_type((error.refused, error.reasons), tuple[tuple[str, ...], tuple[str, ...]])
    except nexcage.InvalidBundle as error:
        assert_type((error.document, error.pointer, error.reason), tuple[str, str, str])
    except nexcage.InvalidImage as error:
        assert_type((error.where, error.reason), tuple[str, str])
    except nexcage.InvalidInput as error:
        assert_type(error.field, str)
        assert_type(error.reason, str)
    except nexcage.IllegalTransition as error:
        assert_type(error.allowed, tuple[str, ...])
    except nexcage.CommandFailed as error:
        assert_type(error.argv, tuple[str, ...])
    except nexcage.Uncertain as error:
        assert_type(error.op_id, str)
    except nexcage.NodeError as error:
        assert_type(error.node, str)
        assert_type(error.retryable, bool)


def validators(anything: object) -> None:
    assert_type(names.container_id(anything), str)
    assert_type(names.hostname(anything), str)
    assert_type(names.vmid(anything), int)
    assert_type(names.node(anything), str)
    assert_type(names.storage(anything), str)
    assert_type(names.path(anything), str)
    assert_type(names.env(anything), tuple[str, str])
    assert_type(names.tag(anything), str)
    assert_type(names.backend(anything), str)
    assert_type(names.signal(anything), int)
    assert_type(names.snapshot(anything), str)
    assert_type(names.dataset(anything), str)
    assert_type(names.image(anything), names.ImageRef)
    assert_type(names.mount(anything), names.Mount)
    assert_type(names.op_id(anything), str)


def leader(id: str) -> nexcage.Command[int]:
    return nexcage.Command(("machinectl", "show", id, "--property=Leader", "--value"), parse=nexcage.number, safe=True)


class Nspawn:
    """A backend of one's own."""

    name = "nspawn"

    def accepts(self, image: nexcage.ImageRef) -> bool:
        return image.text.startswith("nspawn:")

    def check(self, id: str, spec: nexcage.Spec) -> None:
        if spec.swap:
            raise nexcage.InvalidSpec("swap", spec.swap, "0: machinectl has no limit for it")

    async def create(self, node: Node, ref: Ref, spec: nexcage.Spec) -> Ref:
        await node.run(nexcage.Command(("machinectl", "clone", spec.image, ref.id), parse=nexcage.text))
        return ref

    async def start(self, node: Node, ref: Ref) -> int:
        await node.run(nexcage.Command(("machinectl", "start", ref.id), parse=nexcage.text))
        return await node.run(leader(ref.id))

    async def stop(self, node: Node, ref: Ref, *, timeout: float, force: bool) -> None:
        await node.run(
            nexcage.Command(
                ("machinectl", "terminate" if force else "poweroff", ref.id), parse=nexcage.text, timeout=timeout
            )
        )

    async def kill(self, node: Node, ref: Ref, signal: int) -> None:
        await node.run(nexcage.Command(("machinectl", "kill", ref.id, f"--signal={signal}"), parse=nexcage.text))

    async def pause(self, node: Node, ref: Ref) -> None: ...

    async def resume(self, node: Node, ref: Ref) -> None: ...

    async def delete(self, node: Node, ref: Ref, *, force: bool, purge: bool) -> None:
        await node.run(nexcage.Command(("machinectl", "remove", ref.id), parse=nexcage.text))

    def observe(self, node: str, ops: tuple[str, ...] = ()) -> nexcage.Command[nexcage.Look]:
        raise NotImplementedError


def old_settings() -> None:
    converted = nexcage.convert_config("/etc/nexcage/config.json")
    assert_type(converted, nexcage.ConvertedConfig)
    assert_type(converted.dropped, tuple[nexcage.Dropped, ...])
    assert_type(nexcage.config_schema(), dict[str, Any])


def a_directory(state_dir: str, run_dir: str) -> None:
    found = nexcage.examine(state_dir, run_dir, fleet="f1")
    assert_type(found, nexcage.Examination)
    assert_type(found.findings, tuple[nexcage.Finding, ...])
    assert_type(nexcage.repair(state_dir, run_dir), nexcage.Examination)
    nexcage.give_fleet(state_dir, run_dir, "f1")


class First:
    """A placement of one's own."""

    def place(self, id: str, spec: nexcage.Spec, nodes: Sequence[Candidate]) -> str:
        return max(nodes, key=lambda node: node.look.memory).node


class Lines:
    """A sink of one's own."""

    async def put(self, event: nexcage.Event) -> None:
        print(event)

    async def aclose(self) -> None: ...


def fits(one: Nspawn, other: First, sink: Lines) -> tuple[Backend, Placement, Sink]:
    return one, other, sink


class Balancer(Hooks):
    """Hooks of one's own."""

    timeout = 10.0
    policy = "retry"

    async def pre_stop(self, intent: nexcage.Stop, machine: nexcage.Machine) -> None:
        assert_type(machine.state, nexcage.State)

    def failed(self, failure: nexcage.Failure) -> None:
        assert_type(failure.error, nexcage.NexcageError)


class Kernel:
    """A check of one's own."""

    async def check(self, node: Asked) -> Sequence[Check]:
        return [Check("kernel", "PASS", await node.run(nexcage.Command(("uname", "-r"), nexcage.text, safe=True)))]


class Census:
    """A command of one's own."""

    summary = "count"
    usage = ""
    options: Mapping[str, str] = {}

    async def run(
        self, fleet: nexcage.Fleet, words: Sequence[str], options: Mapping[str, str | bool], say: Callable[[str], None]
    ) -> int:
        say(f"{len(list(fleet))}")
        return 0


async def plugged_in() -> tuple[Health, Verb]:
    assert_type(nexcage.plugins(), tuple[nexcage.Plugin, ...])
    settings = {"quota": nexcage.PluginConfig(policy="abort", settings={"memory": 512})}
    assert_type(nexcage.plugged("hooks", settings), dict[str, Any])
    async with nexcage.open_fleet(config=nexcage.Config(plugins=settings, placement="first")) as fleet:
        assert_type(await fleet.moves_off("pve-01", restart=True), list[nexcage.Migrate])
        assert_type(fleet.stay_on("pve-01"), tuple[str, ...])
        assert_type(fleet.cordon("pve-01"), bool)
        assert_type(fleet.uncordon("pve-01"), bool)
        assert_type(fleet.cordoned, frozenset[str])
        checks = await Kernel().check(fleet.nodes["local"])
        assert_type(checks, Sequence[Check])
        try:
            await fleet["web-1"].start()
        except nexcage.Refused as refused:
            assert_type(refused.plugin, str)
    return Kernel(), Census()


async def kept() -> None:
    async with nexcage.open_fleet() as fleet:
        web = fleet["web-1"]
        assert_type(await web.snapshot("before", "the upgrade"), nexcage.Done)
        assert_type(await web.snapshots(), tuple[nexcage.Snap, ...])
        await web.rollback("before", start=True)
        await web.delsnapshot("before")
        change = nexcage.Update(
            "web-1", memory=1024, tags=("web",), nets={"net1": nexcage.Net("eth1")}, unset=("cores",)
        )
        assert_type(await web.plan(change), tuple[nexcage.Change, ...])
        details = await web.details()
        assert_type(details, nexcage.Details)
        try:
            await web.update(memory=1024, digest=details.digest)
            await web.update(limits={"pids-limit": "50"})
        except nexcage.Changed as changed:
            assert_type(changed.digest, str)
        except nexcage.Unsupported as unsupported:
            assert_type(unsupported.op, str)
        await web.resize("rootfs", "+2G")
        await web.move_volume("mp0", "local-zfs", delete=True)
        await web.migrate("pve-02", restart=True)
        await web.make_template()
        await fleet["web-2"].create(nexcage.Spec.from_container("web-1", linked=True))
        batch: list[nexcage.Intent] = [
            nexcage.Snapshot("web-2", "s1"),
            nexcage.Rollback("web-2", "s1", start=True),
            nexcage.DelSnapshot("web-2", "s1"),
            nexcage.Resize("web-2", "rootfs", "10G"),
            nexcage.MoveVolume("web-2", "rootfs", "local"),
            nexcage.Migrate("web-2", "pve-02"),
            nexcage.MakeTemplate("web-2"),
        ]
        await fleet.run(batch)
        assert_type(await web.backup("local", mode="stop"), str)
        assert_type(await web.backups(), tuple[Volume, ...])
        assert_type(await fleet.backups(), dict[str, tuple[Volume, ...]])
        assert_type(
            await fleet.restore("web-3", "local:backup/vzdump-lxc-104-2025_11_24-16_00_05.tar.zst"), nexcage.Done
        )
        await fleet.do(nexcage.Backup("web-1", mode="suspend"))
        assert_type(await fleet.adopt("db-1", 104, node="pve-01"), nexcage.Done)
        await fleet.do(nexcage.Adopt("db-2", 105))
        assert_type(await fleet.rehearse(batch[0]), tuple[str, tuple[nexcage.Command[Any], ...]])


async def tests_of_their_own(sim: SimCluster) -> None:
    sim["pve-02"].crash()
    sim["pve-02"].restart(new_boot=False)
    sim["pve-01"].fault("drop-after", on="pct create", times=1)
    assert_type(sim.transport("pve-01"), Transport)
    assert_type(sim.effects(), list[dict[str, Any]])
    async with sim.fleet(limits=nexcage.Limits()) as fleet:
        assert_type(fleet, nexcage.Fleet)
    result = await sim["pve-01"].run(["pct", "list"])
    assert_type(result.exit, int | None)
    assert_type(result.stdout, bytes)
    await check_backend(Nspawn(), sim, image="nspawn:debian-12")
    content = nexcage.Content("sha256:" + "a" * 64, "sha256:" + "b" * 64)
    await check_backend(Nspawn(), sim, image="/srv/bundle", content=content)
    crun = runtime.Runtime("crun", ("nice", "crun"))
    assert_type(runtime.start(crun, nexcage.Mark("fleet", "web-1", 104, "op-1")), nexcage.Command[None])
    assert_type(runtime.look("pve-01", crun=crun), nexcage.Command[nexcage.Look])


def one_web(now: Aftermath) -> list[str]:
    return [] if len(now.fleet.machines) == 1 else ["there is more than one"]


def every_death_of_their_own(home: Path) -> None:
    async def roll_out(fleet: nexcage.Fleet) -> None:
        await fleet["web-1"].start()

    assert_type(every_crash(roll_out, invariants=[one_web], after=["lost"], most=10), Sweep)
    assert_type(every_crash(roll_out, only=Death(3, "torn"), cluster=lambda: SimCluster(3)).points, tuple[str, ...])
    disk = CrashDisk(home, Fate(at=7))
    disk.fate.die()
    disk.present("kept")
    FaultyDisk(Random(1), rate=0.1).fault("full")


def a_seed() -> None:
    history = explore(7)
    assert_type(history, History)
    assert_type(history.ok, bool)
    assert_type(history.digest, str)
    assert_type(history.lines, tuple[str, ...])
    assert_type(explore(7, only=[0, 2]).wrong, tuple[str, ...])


async def with_datasets() -> None:
    runtimes = {"crun": nexcage.BackendConfig(command=("/opt/crun/bin/crun",))}
    assert_type(nexcage.Config(backends=runtimes).backends["crun"].command, tuple[str, ...])
    settings = nexcage.Config(zfs=nexcage.ZfsConfig(pool="tank", on_delete="keep", properties={"compression": "lz4"}))
    async with nexcage.open_fleet(config=settings) as fleet:
        done = await fleet["web-1"].create(nexcage.Spec("debian:12"))
        assert_type(done.notes, tuple[str, ...])
        (root,) = await fleet.nodes["local"].run(zfs.datasets("tank"))
        assert_type(root.available, int)
    assert_type(zfs.send("tank/a@s"), tuple[str, ...])
