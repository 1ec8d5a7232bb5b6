"""A real Ray cluster of nodes on this machine, with a token of its own, and gateways that have it answer."""

import os
import secrets
import socket
from pathlib import Path
from typing import Any

from serving_house import HERE, Gateway, Place

from everloop.core.settings import forget_ray_token, use_ray_token

VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "PYTHONPATH")


class Nodes:
    """A head and a node, each with `cpus`; `end` ends them."""

    def __init__(self, cpus: int = 6) -> None:
        from ray.cluster_utils import Cluster  # some 100 MB, which only those who run these tests need

        self._before = {name: os.environ.get(name) for name in VARIABLES}
        self.token = secrets.token_hex(32)
        use_ray_token(self.token)
        # what nodes are started with is what their workers find: the models of the tests
        os.environ["PYTHONPATH"] = f"{HERE}:{HERE / 'streaming'}"
        with socket.socket() as probe:  # another cluster of this machine may have the usual port of dashboards
            probe.bind(("127.0.0.1", 0))
            head = {"num_cpus": cpus, "object_store_memory": 10**8, "dashboard_port": probe.getsockname()[1]}
        self._made = Cluster(initialize_head=True, head_node_args=head)
        self.second = self.add(cpus)
        self.address = self._made.address

    def add(self, cpus: int) -> Any:
        node = self._made.add_node(num_cpus=cpus, object_store_memory=10**8)
        self._made.wait_for_nodes()
        return node

    def kill(self, node: Any) -> None:
        self._made.remove_node(node, allow_graceful=False)

    def end(self) -> None:
        import ray

        ray.shutdown()
        self._made.shutdown()
        for name, value in self._before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        forget_ray_token()


class RayPlace(Place):
    """A workspace's serving folder whose gateways have a cluster answer."""

    def __init__(self, home: Path, nodes: Nodes) -> None:
        super().__init__(home, patience=120.0)
        self.nodes = nodes

    def gateway(self, name: str = "g0", listener: Any = None, **options: str) -> Gateway:
        return super().gateway(name, listener, ray=self.nodes.address, **options)
