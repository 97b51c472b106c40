"""Images: a create knows before it begins whether its template is there, many creates fetch it once, and success was seen."""

from __future__ import annotations

from collections import Counter
from typing import Any

import anyio
import pytest

import nexcage
from nexcage import (
    CommandFailed,
    Config,
    Create,
    Defaults,
    Host,
    Image,
    InvalidSpec,
    NexcageError,
    NodeError,
    NodeNotUsable,
    NotFound,
    Spec,
    UnsupportedImage,
)
from nexcage._engine.shelves import Flights
from nexcage.testing import SimCluster
from nexcage.tools.shelf import SHELF

DEBIAN = "local:vztmpl/debian-12-standard_12.7-1_amd64.tar.zst"
UBUNTU = "local:vztmpl/ubuntu-22.04-standard_22.04-1_amd64.tar.zst"
NGINX = "local:vztmpl/nginx_1.29.tar"


class Counting:
    """A link that counts what goes over it, by node and program; a look at images is ``shelf``."""

    def __init__(self, sim: SimCluster) -> None:
        self.sim = sim
        self.ran: Counter[tuple[str, str]] = Counter()

    def connect(self, host: Host) -> Any:
        return _Counted(self, host.key, self.sim.connect(host))

    def count(self, program: str, node: str = "pve-01") -> int:
        return self.ran[node, program]


class _Counted:
    def __init__(self, counting: Counting, node: str, inner: Any) -> None:
        self._counting, self._node, self._inner = counting, node, inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def run(self, command: nexcage.Command[Any]) -> nexcage.Result:
        program = "shelf" if SHELF in command.argv else " ".join(command.argv[:2])
        self._counting.ran[self._node, program] += 1
        result: nexcage.Result = await self._inner.run(command)
        return result


def images(sim: SimCluster, node: str = "pve-01") -> list[str]:
    return [f"local:vztmpl/{name}" for name in sim[node].files.names("/var/lib/vz/template/cache")]


def pulling(**more: Any) -> Config:
    return Config(pull=True, images={"ubuntu:22.04": UBUNTU}, **more)


# ---- before a create ---------------------------------------------------------------------------------------------------------


@pytest.mark.sim(nodes=1)
async def test_a_template_that_is_not_there_is_refused_before_anything_begins_with_those_like_it(
    sim: SimCluster,
) -> None:
    async with sim.fleet() as fleet:
        with pytest.raises(NotFound, match=r"debian-12-standard_12\.7-1_amd64\.tar\.zst") as refused:
            await fleet["web-1"].create(Spec("local:vztmpl/debian-12-standrd_12.7-1_amd64.tar.zst"))
        assert "--pull" in "".join(refused.value.__notes__)
        assert fleet.machines.get("web-1") is None
    assert sim.effects() == []


@pytest.mark.sim(nodes=2)
async def test_another_node_that_has_it_is_named(sim: SimCluster) -> None:
    sim["pve-02"].files.write(f"/var/lib/vz/template/cache/{UBUNTU.partition('/')[2]}", "{}")
    async with sim.fleet() as fleet:
        await fleet["web-1"].create(Spec(UBUNTU, node="pve-02"))
        with pytest.raises(NotFound) as refused:
            await fleet["web-2"].create(Spec(UBUNTU, node="pve-01"))
    assert "it is on pve-02" in refused.value.__notes__


@pytest.mark.sim(nodes=1)
@pytest.mark.parametrize(
    ("image", "kind", "words"),
    [
        (
            "nosuch:vztmpl/debian-12.tar.zst",
            NotFound,
            "storage 'nosuch' does not exist on pve-01; these do: local, local-zfs",
        ),
        ("local-zfs:vztmpl/debian-12.tar.zst", UnsupportedImage, "has no content type vztmpl"),
        ("/srv/nosuch.tar.zst", NotFound, "does not exist on pve-01"),
    ],
)
async def test_a_storage_or_a_file_that_cannot_have_it_is_told(
    sim: SimCluster, image: str, kind: type[NexcageError], words: str
) -> None:
    async with sim.fleet() as fleet:
        with pytest.raises(kind, match=words):
            await fleet["web-1"].create(Spec(image))
    assert sim.effects() == []


@pytest.mark.sim(nodes=2)
async def test_one_look_for_images_answers_for_all_creates_on_a_node(sim: SimCluster) -> None:
    counting = Counting(sim)
    async with sim.fleet(connect=counting.connect) as fleet:
        report = await fleet.run(Create(f"web-{n}", Spec(DEBIAN)) for n in range(60))
        report.raise_for_failures()
        assert {done.node for done in report.done} == {"pve-01", "pve-02"}
    assert (counting.count("shelf"), counting.count("shelf", "pve-02")) == (1, 1)


@pytest.mark.sim(nodes=1)
async def test_where_nobody_can_see_the_images_the_create_itself_says_what_is_wrong(sim: SimCluster) -> None:
    sim["pve-01"].fault("wrong-exit", on="sh -c R=${NEXCAGE_NODE_ROOT-}\nexec 2>/dev/null\nwant=", times=0, exit=1)
    async with sim.fleet() as fleet:
        assert (await fleet["web-1"].create(Spec(DEBIAN))).changed
        with pytest.raises(NexcageError, match="does not exist"):
            await fleet["web-2"].create(Spec(UBUNTU))
    assert len(sim.effects()) >= 1


# ---- fetching ----------------------------------------------------------------------------------------------------------------


@pytest.mark.sim(nodes=1)
async def test_many_creates_that_miss_a_template_wait_for_one_download(sim: SimCluster) -> None:
    counting = Counting(sim)
    async with sim.fleet(connect=counting.connect, config=pulling()) as fleet:
        spec = Spec("ubuntu:22.04", backend="lxc")
        (await fleet.run(Create(f"web-{n}", spec) for n in range(25))).raise_for_failures()
        spec_of = fleet["web-3"].machine.spec
        assert spec_of is not None
        assert spec_of.image == UBUNTU
    assert counting.count("pveam download") == 1
    assert UBUNTU in images(sim)


@pytest.mark.sim(nodes=2)
async def test_each_node_that_needs_it_fetches_it_once(sim: SimCluster) -> None:
    counting = Counting(sim)
    async with sim.fleet(connect=counting.connect) as fleet:
        report = await fleet.run(Create(f"web-{n}", Spec(UBUNTU, pull=True)) for n in range(20))
        report.raise_for_failures()
    assert [counting.count("pveam download", node) for node in ("pve-01", "pve-02")] == [1, 1]


@pytest.mark.sim(nodes=1)
async def test_a_template_that_is_newer_than_the_nodes_index_is_found_after_an_update(sim: SimCluster) -> None:
    counting = Counting(sim)
    newest = "local:vztmpl/debian-13-standard_13.1-2_amd64.tar.zst"
    async with sim.fleet(connect=counting.connect) as fleet:
        assert (await fleet["web-1"].create(Spec(newest, pull=True))).changed
    assert (counting.count("pveam update"), counting.count("pveam download")) == (1, 2)


@pytest.mark.sim(nodes=1)
async def test_a_template_that_nobody_offers_is_refused_with_those_like_it(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        with pytest.raises(NotFound, match=r"ubuntu-24\.04-standard_24\.04-2_amd64\.tar\.zst"):
            await fleet["web-1"].create(Spec("local:vztmpl/ubuntu-24.04-standard_24.04-1_amd64.tar.zst", pull=True))
        assert fleet.machines.get("web-1") is None


@pytest.mark.sim(nodes=1)
async def test_a_download_that_says_yes_and_leaves_nothing_is_a_failure_for_all_who_waited(sim: SimCluster) -> None:
    counting = Counting(sim)
    sim["pve-01"].fault("storage-full", storage="local")
    async with sim.fleet(connect=counting.connect) as fleet:
        report = await fleet.run(Create(f"web-{n}", Spec(UBUNTU, pull=True)) for n in range(10))
        assert [type(failure.error) for failure in report.failures] == [CommandFailed] * 10
        assert "pveam download" in str(report.failures[0].error)
    assert counting.count("pveam download") == 1
    assert UBUNTU not in images(sim)


@pytest.mark.sim(nodes=1)
async def test_an_image_of_a_registry_is_pulled_and_made_a_container_of(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        await fleet["web-1"].create(Spec("nginx:1.29", backend="lxc", pull=True))
        machine = fleet["web-1"].machine
        assert machine.spec is not None
        assert machine.spec.image == NGINX
    assert NGINX in images(sim)
    config = sim["pve-01"].model.config(machine.vmid)
    assert config is not None
    assert "entrypoint: nginx" in config


@pytest.mark.sim(nodes=1)
async def test_a_registry_that_says_no_is_a_failure_in_the_words_of_the_task(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        with pytest.raises(CommandFailed, match=r"skopeo copy docker://docker\.io/library/nginx:0\.1"):
            await fleet["web-1"].create(Spec("nginx:0.1", backend="lxc", pull=True))
        sim.teach("pvesh", lambda argv, stdin: (1, "", f"No 'create' handler defined for '{argv[2]}'\n"))
        with pytest.raises(NodeNotUsable, match=r"9\.1"):
            await fleet["web-1"].create(Spec("nginx:1.29", backend="lxc", pull=True))


@pytest.mark.sim(nodes=1)
@pytest.mark.parametrize("fault", ["drop-before", "drop-during", "drop-after"])
async def test_losing_the_link_during_a_download_costs_only_time(sim: SimCluster, fault: str) -> None:
    sim["pve-01"].fault(fault, on="pveam download")
    async with sim.fleet() as fleet:
        done = await fleet["web-1"].create(Spec(UBUNTU, pull=True))
    assert done.changed
    assert len([effect for effect in sim.effects() if effect["argv"][:2] == ["pct", "create"]]) == 1


@pytest.mark.sim(nodes=1)
async def test_when_the_one_who_fetches_is_cancelled_another_one_fetches(sim: SimCluster) -> None:
    counting = Counting(sim)
    async with sim.fleet(connect=counting.connect) as fleet, anyio.create_task_group() as tasks:
        with anyio.CancelScope() as first:
            async with anyio.create_task_group() as inner:
                inner.start_soon(fleet.pull, UBUNTU)
                while not counting.count("pveam download"):
                    await anyio.sleep(0.1)
                tasks.start_soon(fleet["web-1"].create, Spec(UBUNTU, pull=True))
                await anyio.sleep(0.5)
                first.cancel()
        while fleet["web-1"].machine.state is not nexcage.State.CREATED:
            await anyio.sleep(0.5)
    assert counting.count("pveam download") == 2
    assert UBUNTU in images(sim)


async def test_work_that_is_cancelled_is_taken_over_by_one_who_waits() -> None:
    flights, begun = Flights(), 0
    answers: list[str] = []

    async def work() -> str:
        nonlocal begun
        begun += 1
        if begun == 1:
            await anyio.sleep_forever()
        await anyio.sleep(0.01)
        return "done"

    async def join() -> None:
        answers.append(await flights.join(("x",), work))

    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as first:
            async with anyio.create_task_group() as inner:
                inner.start_soon(join)
                await anyio.wait_all_tasks_blocked()
                tasks.start_soon(join)
                tasks.start_soon(join)
                await anyio.wait_all_tasks_blocked()
                first.cancel()
    assert (answers, begun) == (["done", "done"], 2)


# ---- for people --------------------------------------------------------------------------------------------------------------


@pytest.mark.sim(nodes=2)
async def test_the_images_of_all_nodes_and_the_error_of_one_that_is_away(sim: SimCluster) -> None:
    sim["pve-02"].crash()
    async with sim.fleet() as fleet:
        found = await fleet.images()
    assert isinstance(found["pve-02"], NodeError)
    here = found["pve-01"]
    assert isinstance(here, tuple)
    assert DEBIAN in {image.volume for image in here}
    assert {(image.storage, image.node) for image in here} == {("local", "pve-01")}


@pytest.mark.sim(nodes=1)
@pytest.mark.parametrize(("fault", "there"), [("drop-after", True), ("drop-before", False)])
async def test_a_lost_answer_of_a_pull_or_rmi_is_looked_for(sim: SimCluster, fault: str, there: bool) -> None:
    async with sim.fleet() as fleet:
        await fleet.images()
        sim["pve-01"].fault(fault, on="pveam download")
        (pulled,) = (await fleet.pull(UBUNTU)).values()
        assert isinstance(pulled, Image) is there
        if isinstance(pulled, NexcageError):
            assert isinstance(pulled, NodeError)
            return
        sim["pve-01"].fault(fault, on="pveam remove")
        assert await fleet.rmi(UBUNTU) == {"pve-01": True}
    assert UBUNTU not in images(sim)


@pytest.mark.sim(nodes=2)
async def test_pull_and_rmi_say_what_they_did_on_each_node(sim: SimCluster) -> None:
    async with sim.fleet() as fleet:
        pulled = await fleet.pull("nginx:1.29", "pve-02")
        assert isinstance(pulled["pve-02"], Image)
        assert pulled["pve-02"].volume == NGINX
        assert (await fleet.pull("nginx:1.29")).keys() == {"pve-01", "pve-02"}
        assert await fleet.rmi("nginx:1.29", "pve-01") == {"pve-01": True}
        assert await fleet.rmi("nginx:1.29") == {"pve-01": False, "pve-02": True}
        with pytest.raises(NotFound, match="pve-09"):
            await fleet.images("pve-09")
    assert not [name for node in sim for name in images(sim, node.name) if "nginx" in name]


@pytest.mark.sim(nodes=2)
async def test_nodes_that_share_a_storage_fetch_an_image_one_after_the_other_and_once(sim: SimCluster) -> None:
    counting = Counting(sim)
    cfg = sim["pve-01"].files.read("/etc/pve/storage.cfg")
    sim["pve-01"].files.write(
        "/etc/pve/storage.cfg", f"{cfg}\ndir: far\n\tpath /mnt/far\n\tcontent vztmpl\n\tshared 1\n"
    )
    name = UBUNTU.partition("/")[2]

    async with sim.fleet(connect=counting.connect) as fleet, anyio.create_task_group() as tasks:

        async def mirror() -> None:
            """What one node of a shared storage writes, the other one sees."""
            while True:
                for one, other in (("pve-01", "pve-02"), ("pve-02", "pve-01")):
                    text = sim[one].files.read(f"/mnt/far/template/cache/{name}")
                    if text is not None:
                        sim[other].files.write(f"/mnt/far/template/cache/{name}", text)
                await anyio.sleep(0.0005)

        tasks.start_soon(mirror)
        found = await fleet.pull(f"far:vztmpl/{name}")
        assert [type(image) for image in found.values()] == [Image, Image]
        tasks.cancel_scope.cancel()
    assert counting.count("pveam download") + counting.count("pveam download", "pve-02") == 1


@pytest.mark.sim(nodes=1)
async def test_what_cannot_be_pulled_is_refused_before_anything_runs(sim: SimCluster) -> None:
    async with sim.fleet(config=Config(defaults=Defaults(image_storage="local"))) as fleet:
        for image in ("./bundle", "/srv/x.tar.zst", "nginx@sha256:" + "a" * 64):
            with pytest.raises(UnsupportedImage):
                await fleet.pull(image)
        with pytest.raises(InvalidSpec, match="local"):
            await fleet.pull(UBUNTU, storage="other")
        assert isinstance((await fleet.pull("x.tar.zst", storage="nosuch"))["pve-01"], NotFound)
    assert sim.effects() == []
