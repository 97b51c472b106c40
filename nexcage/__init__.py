"""nexcage: containers on Proxmox VE as state machines, on this machine or on many nodes over SSH.

Everything public is exported here and imported when it is first used, so that ``import nexcage`` costs little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nexcage._version import __version__ as __version__

if TYPE_CHECKING:
    from nexcage._core.bundle_plan.model import BundlePlan as BundlePlan
    from nexcage._core.changes import Change as Change
    from nexcage._core.command import Claim as Claim
    from nexcage._core.command import Command as Command
    from nexcage._core.command import Result as Result
    from nexcage._core.command import failed as failed
    from nexcage._core.command import number as number
    from nexcage._core.command import shown as shown
    from nexcage._core.command import text as text
    from nexcage._core.config import BackendConfig as BackendConfig
    from nexcage._core.config import Config as Config
    from nexcage._core.config import ContentsConfig as ContentsConfig
    from nexcage._core.config import Defaults as Defaults
    from nexcage._core.config import LeaseConfig as LeaseConfig
    from nexcage._core.config import Limits as Limits
    from nexcage._core.config import NodeConfig as NodeConfig
    from nexcage._core.config import Route as Route
    from nexcage._core.config import ZfsConfig as ZfsConfig
    from nexcage._core.contents import Content as Content
    from nexcage._core.details import Details as Details
    from nexcage._core.details import Snap as Snap
    from nexcage._core.drift import Difference as Difference
    from nexcage._core.events import Attempted as Attempted
    from nexcage._core.events import Began as Began
    from nexcage._core.events import Failed as Failed
    from nexcage._core.events import Interrupted as Interrupted
    from nexcage._core.events import NodeFound as NodeFound
    from nexcage._core.events import NodeLost as NodeLost
    from nexcage._core.events import Observed as Observed
    from nexcage._core.events import Problem as Problem
    from nexcage._core.events import Succeeded as Succeeded
    from nexcage._core.events import TakenOver as TakenOver
    from nexcage._core.finding import Finding as Finding
    from nexcage._core.hosts import Host as Host
    from nexcage._core.hosts import hosts as hosts
    from nexcage._core.images import Image as Image
    from nexcage._core.images import Template as Template
    from nexcage._core.inside import Addresses as Addresses
    from nexcage._core.inside import Copied as Copied
    from nexcage._core.inside import Executed as Executed
    from nexcage._core.inside import Process as Process
    from nexcage._core.inside import Stats as Stats
    from nexcage._core.intents import Adopt as Adopt
    from nexcage._core.intents import Create as Create
    from nexcage._core.intents import Delete as Delete
    from nexcage._core.intents import Exec as Exec
    from nexcage._core.intents import Intent as Intent
    from nexcage._core.intents import Kill as Kill
    from nexcage._core.intents import Pause as Pause
    from nexcage._core.intents import Push as Push
    from nexcage._core.intents import Resume as Resume
    from nexcage._core.intents import Start as Start
    from nexcage._core.intents import Stop as Stop
    from nexcage._core.keeping import Backup as Backup
    from nexcage._core.keeping import DelSnapshot as DelSnapshot
    from nexcage._core.keeping import MakeTemplate as MakeTemplate
    from nexcage._core.keeping import Migrate as Migrate
    from nexcage._core.keeping import MoveVolume as MoveVolume
    from nexcage._core.keeping import Resize as Resize
    from nexcage._core.keeping import Rollback as Rollback
    from nexcage._core.keeping import Snapshot as Snapshot
    from nexcage._core.keeping import Update as Update
    from nexcage._core.legacy import ConvertedConfig as ConvertedConfig
    from nexcage._core.legacy import Dropped as Dropped
    from nexcage._core.machine import Checkpointed as Checkpointed
    from nexcage._core.machine import Event as Event
    from nexcage._core.machine import Machine as Machine
    from nexcage._core.machine import fold as fold
    from nexcage._core.oci import OCI_VERSION as OCI_VERSION
    from nexcage._core.oci import OciState as OciState
    from nexcage._core.outcome import Done as Done
    from nexcage._core.outcome import Failure as Failure
    from nexcage._core.outcome import Outcome as Outcome
    from nexcage._core.outcome import Report as Report
    from nexcage._core.plugin import Plugin as Plugin
    from nexcage._core.plugin import PluginConfig as PluginConfig
    from nexcage._core.route import Plan as Plan
    from nexcage._core.schema import config_schema as config_schema
    from nexcage._core.seen import Guest as Guest
    from nexcage._core.seen import Look as Look
    from nexcage._core.seen import Mark as Mark
    from nexcage._core.seen import Settled as Settled
    from nexcage._core.seen import Task as Task
    from nexcage._core.selector import Selector as Selector
    from nexcage._core.spec import Net as Net
    from nexcage._core.spec import Spec as Spec
    from nexcage._core.states import Op as Op
    from nexcage._core.states import State as State
    from nexcage._core.vm import Vm as Vm
    from nexcage._engine.container import Container as Container
    from nexcage._engine.fleet import Fleet as Fleet
    from nexcage._engine.inside import ExecStream as ExecStream
    from nexcage._legacy import convert_config as convert_config
    from nexcage._open import load_config as load_config
    from nexcage._open import open_fleet as open_fleet
    from nexcage._open import run_dir_of as run_dir_of
    from nexcage._open import state_dir_of as state_dir_of
    from nexcage._planning import plan_bundle as plan_bundle
    from nexcage._plugins import plugged as plugged
    from nexcage._plugins import plugins as plugins
    from nexcage._sinks.doctor import Examination as Examination
    from nexcage._sinks.doctor import examine as examine
    from nexcage._sinks.follow import follow as follow
    from nexcage._sinks.lines import LineSink as LineSink
    from nexcage._sinks.lines import LogSink as LogSink
    from nexcage._sinks.lines import text_line as text_line
    from nexcage._sinks.mend import give_fleet as give_fleet
    from nexcage._sinks.mend import repair as repair
    from nexcage._sinks.segments import read_journal as read_journal
    from nexcage.abc import Ref as Ref
    from nexcage.errors import AlreadyExists as AlreadyExists
    from nexcage.errors import AuthRejected as AuthRejected
    from nexcage.errors import Blocked as Blocked
    from nexcage.errors import BundleRefused as BundleRefused
    from nexcage.errors import Busy as Busy
    from nexcage.errors import Changed as Changed
    from nexcage.errors import CommandFailed as CommandFailed
    from nexcage.errors import Fenced as Fenced
    from nexcage.errors import HostKeyRejected as HostKeyRejected
    from nexcage.errors import IllegalTransition as IllegalTransition
    from nexcage.errors import InvalidBundle as InvalidBundle
    from nexcage.errors import InvalidImage as InvalidImage
    from nexcage.errors import InvalidInput as InvalidInput
    from nexcage.errors import InvalidName as InvalidName
    from nexcage.errors import InvalidPath as InvalidPath
    from nexcage.errors import InvalidSpec as InvalidSpec
    from nexcage.errors import JournalError as JournalError
    from nexcage.errors import Lagged as Lagged
    from nexcage.errors import NexcageError as NexcageError
    from nexcage.errors import NodeError as NodeError
    from nexcage.errors import NodeNotUsable as NodeNotUsable
    from nexcage.errors import NodeTimeout as NodeTimeout
    from nexcage.errors import NodeUnreachable as NodeUnreachable
    from nexcage.errors import NoQuorum as NoQuorum
    from nexcage.errors import NoRoute as NoRoute
    from nexcage.errors import NotFound as NotFound
    from nexcage.errors import NotOurs as NotOurs
    from nexcage.errors import Refused as Refused
    from nexcage.errors import SinkError as SinkError
    from nexcage.errors import Uncertain as Uncertain
    from nexcage.errors import Unsupported as Unsupported
    from nexcage.errors import UnsupportedImage as UnsupportedImage
    from nexcage.names import ImageRef as ImageRef
    from nexcage.names import Mount as Mount

__all__ = [
    "OCI_VERSION",
    "Addresses",
    "Adopt",
    "AlreadyExists",
    "Attempted",
    "AuthRejected",
    "BackendConfig",
    "Backup",
    "Began",
    "Blocked",
    "BundlePlan",
    "BundleRefused",
    "Busy",
    "Change",
    "Changed",
    "Checkpointed",
    "Claim",
    "Command",
    "CommandFailed",
    "Config",
    "Container",
    "Content",
    "ContentsConfig",
    "ConvertedConfig",
    "Copied",
    "Create",
    "Defaults",
    "DelSnapshot",
    "Delete",
    "Details",
    "Difference",
    "Done",
    "Dropped",
    "Event",
    "Examination",
    "Exec",
    "ExecStream",
    "Executed",
    "Failed",
    "Failure",
    "Fenced",
    "Finding",
    "Fleet",
    "Guest",
    "Host",
    "HostKeyRejected",
    "IllegalTransition",
    "Image",
    "ImageRef",
    "Intent",
    "Interrupted",
    "InvalidBundle",
    "InvalidImage",
    "InvalidInput",
    "InvalidName",
    "InvalidPath",
    "InvalidSpec",
    "JournalError",
    "Kill",
    "Lagged",
    "LeaseConfig",
    "Limits",
    "LineSink",
    "LogSink",
    "Look",
    "Machine",
    "MakeTemplate",
    "Mark",
    "Migrate",
    "Mount",
    "MoveVolume",
    "Net",
    "NexcageError",
    "NoQuorum",
    "NoRoute",
    "NodeConfig",
    "NodeError",
    "NodeFound",
    "NodeLost",
    "NodeNotUsable",
    "NodeTimeout",
    "NodeUnreachable",
    "NotFound",
    "NotOurs",
    "Observed",
    "OciState",
    "Op",
    "Outcome",
    "Pause",
    "Plan",
    "Plugin",
    "PluginConfig",
    "Problem",
    "Process",
    "Push",
    "Ref",
    "Refused",
    "Report",
    "Resize",
    "Result",
    "Resume",
    "Rollback",
    "Route",
    "Selector",
    "Settled",
    "SinkError",
    "Snap",
    "Snapshot",
    "Spec",
    "Start",
    "State",
    "Stats",
    "Stop",
    "Succeeded",
    "TakenOver",
    "Task",
    "Template",
    "Uncertain",
    "Unsupported",
    "UnsupportedImage",
    "Update",
    "Vm",
    "ZfsConfig",
    "__version__",
    "config_schema",
    "convert_config",
    "examine",
    "failed",
    "fold",
    "follow",
    "give_fleet",
    "hosts",
    "load_config",
    "number",
    "open_fleet",
    "plan_bundle",
    "plugged",
    "plugins",
    "read_journal",
    "repair",
    "run_dir_of",
    "shown",
    "state_dir_of",
    "text",
    "text_line",
]

_HOME: dict[str, str] = {
    "Change": "nexcage._core.changes",
    "Claim": "nexcage._core.command",
    "Command": "nexcage._core.command",
    "Result": "nexcage._core.command",
    "failed": "nexcage._core.command",
    "number": "nexcage._core.command",
    "shown": "nexcage._core.command",
    "text": "nexcage._core.command",
    "BackendConfig": "nexcage._core.config",
    "Config": "nexcage._core.config",
    "Defaults": "nexcage._core.config",
    "LeaseConfig": "nexcage._core.config",
    "Limits": "nexcage._core.config",
    "NodeConfig": "nexcage._core.config",
    "Route": "nexcage._core.config",
    "ZfsConfig": "nexcage._core.config",
    "Details": "nexcage._core.details",
    "Snap": "nexcage._core.details",
    "Difference": "nexcage._core.drift",
    "Attempted": "nexcage._core.events",
    "Began": "nexcage._core.events",
    "Failed": "nexcage._core.events",
    "Interrupted": "nexcage._core.events",
    "NodeFound": "nexcage._core.events",
    "NodeLost": "nexcage._core.events",
    "Observed": "nexcage._core.events",
    "Problem": "nexcage._core.events",
    "Succeeded": "nexcage._core.events",
    "TakenOver": "nexcage._core.events",
    "Finding": "nexcage._core.finding",
    "Host": "nexcage._core.hosts",
    "hosts": "nexcage._core.hosts",
    "Image": "nexcage._core.images",
    "Template": "nexcage._core.images",
    "Addresses": "nexcage._core.inside",
    "Content": "nexcage._core.contents",
    "ContentsConfig": "nexcage._core.config",
    "Copied": "nexcage._core.inside",
    "Executed": "nexcage._core.inside",
    "Process": "nexcage._core.inside",
    "Stats": "nexcage._core.inside",
    "Adopt": "nexcage._core.intents",
    "Create": "nexcage._core.intents",
    "Delete": "nexcage._core.intents",
    "Intent": "nexcage._core.intents",
    "Kill": "nexcage._core.intents",
    "Pause": "nexcage._core.intents",
    "Resume": "nexcage._core.intents",
    "Start": "nexcage._core.intents",
    "Stop": "nexcage._core.intents",
    "Exec": "nexcage._core.intents",
    "Push": "nexcage._core.intents",
    "DelSnapshot": "nexcage._core.keeping",
    "MakeTemplate": "nexcage._core.keeping",
    "Backup": "nexcage._core.keeping",
    "Migrate": "nexcage._core.keeping",
    "MoveVolume": "nexcage._core.keeping",
    "Resize": "nexcage._core.keeping",
    "Rollback": "nexcage._core.keeping",
    "Snapshot": "nexcage._core.keeping",
    "Update": "nexcage._core.keeping",
    "ConvertedConfig": "nexcage._core.legacy",
    "Dropped": "nexcage._core.legacy",
    "Checkpointed": "nexcage._core.machine",
    "Event": "nexcage._core.machine",
    "Machine": "nexcage._core.machine",
    "fold": "nexcage._core.machine",
    "OCI_VERSION": "nexcage._core.oci",
    "OciState": "nexcage._core.oci",
    "Done": "nexcage._core.outcome",
    "Failure": "nexcage._core.outcome",
    "Outcome": "nexcage._core.outcome",
    "Report": "nexcage._core.outcome",
    "Plugin": "nexcage._core.plugin",
    "PluginConfig": "nexcage._core.plugin",
    "Plan": "nexcage._core.route",
    "config_schema": "nexcage._core.schema",
    "Guest": "nexcage._core.seen",
    "Look": "nexcage._core.seen",
    "Mark": "nexcage._core.seen",
    "Settled": "nexcage._core.seen",
    "Task": "nexcage._core.seen",
    "Selector": "nexcage._core.selector",
    "Net": "nexcage._core.spec",
    "Spec": "nexcage._core.spec",
    "Op": "nexcage._core.states",
    "State": "nexcage._core.states",
    "Vm": "nexcage._core.vm",
    "Container": "nexcage._engine.container",
    "Fleet": "nexcage._engine.fleet",
    "ExecStream": "nexcage._engine.inside",
    "convert_config": "nexcage._legacy",
    "load_config": "nexcage._open",
    "open_fleet": "nexcage._open",
    "run_dir_of": "nexcage._open",
    "state_dir_of": "nexcage._open",
    "plan_bundle": "nexcage._planning",
    "plugged": "nexcage._plugins",
    "plugins": "nexcage._plugins",
    "Examination": "nexcage._sinks.doctor",
    "examine": "nexcage._sinks.doctor",
    "follow": "nexcage._sinks.follow",
    "LineSink": "nexcage._sinks.lines",
    "LogSink": "nexcage._sinks.lines",
    "text_line": "nexcage._sinks.lines",
    "give_fleet": "nexcage._sinks.mend",
    "repair": "nexcage._sinks.mend",
    "read_journal": "nexcage._sinks.segments",
    "Ref": "nexcage.abc",
    "AlreadyExists": "nexcage.errors",
    "AuthRejected": "nexcage.errors",
    "Blocked": "nexcage.errors",
    "BundlePlan": "nexcage._core.bundle_plan.model",
    "BundleRefused": "nexcage.errors",
    "Busy": "nexcage.errors",
    "CommandFailed": "nexcage.errors",
    "Fenced": "nexcage.errors",
    "HostKeyRejected": "nexcage.errors",
    "IllegalTransition": "nexcage.errors",
    "InvalidBundle": "nexcage.errors",
    "InvalidImage": "nexcage.errors",
    "InvalidInput": "nexcage.errors",
    "InvalidName": "nexcage.errors",
    "InvalidPath": "nexcage.errors",
    "InvalidSpec": "nexcage.errors",
    "JournalError": "nexcage.errors",
    "Lagged": "nexcage.errors",
    "NexcageError": "nexcage.errors",
    "NoQuorum": "nexcage.errors",
    "NoRoute": "nexcage.errors",
    "NodeError": "nexcage.errors",
    "NodeNotUsable": "nexcage.errors",
    "NodeTimeout": "nexcage.errors",
    "NodeUnreachable": "nexcage.errors",
    "NotFound": "nexcage.errors",
    "NotOurs": "nexcage.errors",
    "Refused": "nexcage.errors",
    "SinkError": "nexcage.errors",
    "Uncertain": "nexcage.errors",
    "UnsupportedImage": "nexcage.errors",
    "Changed": "nexcage.errors",
    "Unsupported": "nexcage.errors",
    "ImageRef": "nexcage.names",
    "Mount": "nexcage.names",
}


def __getattr__(name: str) -> object:
    if name in _HOME:
        from importlib import import_module

        value: object = getattr(import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'nexcage' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
