"""A cluster in a process of its own, so that any of its processes can be killed: `python ray_host.py TOKEN NODES`.

Prints one JSON line (`address`, and the process ids of each node, the head's first), and ends when its input does.
"""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress

import psutil


class Host:
    """A cluster: one head and `nodes` more, each with two cores."""

    def __init__(self, token, nodes=1, seconds=120):
        self.token = token
        words = [sys.executable, __file__, token, str(nodes)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.told = json.loads(self.process.stdout.readline() or "{}")
        if not self.told:
            self.kill()
            raise RuntimeError("the cluster did not start")

    @property
    def address(self):
        return self.told["address"]

    def pids(self, node=None):
        """Processes of a node (0: the head), workers too; of all without a number."""
        own = self.told["nodes"] if node is None else [self.told["nodes"][node]]
        found = []
        for pid in (pid for pids in own for pid in pids):
            with suppress(psutil.Error):
                one = psutil.Process(pid)
                found += [one.pid, *(child.pid for child in one.children(recursive=True))]
        return found

    def kill(self, node=None):
        """Kill a node, or everything of the cluster with its host."""
        pids = [*self.pids(node), *([self.process.pid] if node is None else [])] if self.told else [self.process.pid]
        if node is None:
            with suppress(psutil.Error):
                pids += [child.pid for child in psutil.Process(self.process.pid).children(recursive=True)]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if node is None:
            self.process.stdin.close()
            self.process.stdout.close()
            self.process.wait()


def main(token, nodes):
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "RAY_USAGE_STATS_ENABLED": "0"}
    from ray.cluster_utils import Cluster

    size = {"num_cpus": 2, "object_store_memory": 10**8}
    said, sys.stdout = sys.stdout, sys.stderr
    cluster = Cluster(initialize_head=True, head_node_args=size)
    made = [cluster.head_node, *(cluster.add_node(**size) for _ in range(nodes))]
    cluster.wait_for_nodes()
    pids = [[process.pid for _, process in node.live_processes()] for node in made]
    said.write(json.dumps({"address": cluster.address, "nodes": pids}) + "\n")
    said.flush()
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
