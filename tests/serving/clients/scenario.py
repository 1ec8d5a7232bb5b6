"""Run by `test_clients` in an environment that holds clients nobody here wrote: python scenario.py NAME HOST:PORT

Each function asks an endpoint `shop.delay` that echoes `distance` (FP64) and `carrier` (BYTES), and fails on distances
of -1; it prints nothing and raises when an answer is not what the protocol says.
"""

import asyncio
import sys

import numpy as np

MODEL = "shop.delay"
DISTANCE = np.array([1.5, 2.5])
HOUR = np.array([1, 2], np.int64)
CARRIER = np.array([b"AA", b"UA"], np.object_)


def tensors(module):
    made = [
        module.InferInput("distance", [2], "FP64"),
        module.InferInput("hour", [2], "INT64"),
        module.InferInput("carrier", [2], "BYTES"),
    ]
    for tensor, values in zip(made, (DISTANCE, HOUR, CARRIER), strict=True):
        tensor.set_data_from_numpy(values)
    return made


def check(result):
    assert result.as_numpy("echo").tolist() == [1.5, 2.5]
    assert [getattr(v, "decode", lambda v=v: v)() for v in result.as_numpy("carrier").tolist()] == ["AA", "UA"]


def raised(error, call, *words):
    try:
        call()
    except error as caught:
        said = str(caught)
    else:
        said = "it did not fail"
    assert all(word in said for word in words), said


async def raised_later(error, call, *words):
    try:
        await call
    except error as caught:
        said = str(caught)
    else:
        said = "it did not fail"
    assert all(word in said for word in words), said


def triton_http(address):
    from tritonclient import http
    from tritonclient.utils import InferenceServerException

    client = http.InferenceServerClient(address)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(MODEL, "1")
    assert "model_repository" in client.get_server_metadata()["extensions"]
    assert [i["name"] for i in client.get_model_metadata(MODEL)["inputs"]] == ["distance", "hour", "carrier"]
    check(client.infer(MODEL, tensors(http)))  # binary both ways: the client's default
    json = [http.InferInput(t.name(), t.shape(), t.datatype()) for t in tensors(http)]
    for tensor, values in zip(json, (DISTANCE, HOUR, CARRIER), strict=True):
        tensor.set_data_from_numpy(values, binary_data=False)
    wanted = [http.InferRequestedOutput(name, binary_data=False) for name in ("carrier", "echo")]
    check(client.infer(MODEL, json, outputs=wanted, model_version="1", request_id="mine"))
    assert client.infer(MODEL, json, request_id="mine").get_response()["id"] == "mine"
    many = http.InferInput("distance", [2000], "FP64"), http.InferInput("hour", [2000], "INT64")
    text = http.InferInput("carrier", [2000], "BYTES")
    for tensor, values in zip((*many, text), (DISTANCE, HOUR, CARRIER), strict=True):
        tensor.set_data_from_numpy(np.resize(values, 2000))
    for coding in ("gzip", "deflate"):
        check(client.infer(MODEL, tensors(http), request_compression_algorithm=coding))
        squeezed = {"request_compression_algorithm": coding, "response_compression_algorithm": coding}
        assert client.infer(MODEL, [*many, text], **squeezed).as_numpy("echo").shape == (2000,)
    check(client.async_infer(MODEL, tensors(http)).get_result())
    index = client.get_model_repository_index()
    assert index == [{"name": MODEL, "version": "1", "state": "READY", "reason": ""}]
    client.unload_model(MODEL)
    assert not client.is_model_ready(MODEL)
    client.load_model(MODEL)
    assert client.is_model_ready(MODEL)
    tensor = tensors(http)
    tensor[0].set_data_from_numpy(np.array([-1.0, 1.0]))
    raised(InferenceServerException, lambda: client.infer(MODEL, tensor), "no negative distances")
    raised(InferenceServerException, lambda: client.infer("shop.none", tensors(http)), "no endpoint")
    raised(InferenceServerException, lambda: client.infer(MODEL, tensors(http)[:1]), "missing")


def triton_aio(address):
    from tritonclient import http
    from tritonclient.http import aio
    from tritonclient.utils import InferenceServerException

    async def story():
        async with aio.InferenceServerClient(address) as client:
            assert await client.is_server_live()
            assert await client.is_model_ready(MODEL)
            assert (await client.get_model_metadata(MODEL))["name"] == MODEL
            check(await client.infer(MODEL, tensors(http)))
            check(await client.infer(MODEL, tensors(http), response_compression_algorithm="gzip"))
            await raised_later(InferenceServerException, client.infer("shop.none", tensors(http)), "no endpoint")

    asyncio.run(story())


def triton_grpc(address):
    from tritonclient import grpc
    from tritonclient.utils import InferenceServerException

    client = grpc.InferenceServerClient(address)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.get_server_metadata().name == "everloop"
    assert [o.name for o in client.get_model_metadata(MODEL).outputs] == ["echo", "carrier"]
    check(client.infer(MODEL, tensors(grpc)))
    result = client.infer(MODEL, tensors(grpc), outputs=[grpc.InferRequestedOutput("echo")], request_id="mine")
    assert [o.name for o in result.get_response().outputs] == ["echo"]
    assert result.get_response().id == "mine"
    assert result.get_response().parameters["prediction_id"].string_param
    check(client.infer(MODEL, tensors(grpc), compression_algorithm="gzip", model_version="1"))
    assert [m.state for m in client.get_model_repository_index().models] == ["READY"]
    client.unload_model(MODEL)
    assert not client.is_model_ready(MODEL)
    client.load_model(MODEL)
    assert client.is_model_ready(MODEL)
    tensor = tensors(grpc)
    tensor[0].set_data_from_numpy(np.array([-1.0, 1.0]))
    raised(InferenceServerException, lambda: client.infer(MODEL, tensor), "no negative distances")
    raised(InferenceServerException, lambda: client.infer("shop.none", tensors(grpc)), "NOT_FOUND")
    raised(InferenceServerException, lambda: client.infer(MODEL, tensors(grpc)[:1]), "INVALID_ARGUMENT")
    streamed = []
    client.start_stream(lambda result, error: streamed.append((result, error)))
    client.async_stream_infer(MODEL, tensors(grpc))
    client.async_stream_infer("shop.none", tensors(grpc))
    client.stop_stream()
    assert streamed[0][1] is None
    check(streamed[0][0])
    assert "no endpoint" in str(streamed[1][1])


def kserve_rest(address):
    import httpx
    from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

    async def story():
        client = InferenceRESTClient(RESTConfig(protocol="v2"))
        base = f"http://{address}"
        assert await client.is_server_live(base)
        assert await client.is_server_ready(base)
        assert await client.is_model_ready(base, MODEL)
        for binary in (False, True):
            inputs = [InferInput(n, [2], d) for n, d in (("distance", "FP64"), ("hour", "INT64"), ("carrier", "BYTES"))]
            for tensor, values in zip(inputs, (DISTANCE, HOUR, CARRIER), strict=True):
                tensor.set_data_from_numpy(values, binary_data=binary)
            check_kserve(await client.infer(base, InferRequest(MODEL, inputs), model_name=MODEL))
        asked = client.infer(base, InferRequest("shop.none", inputs), model_name="shop.none")
        await raised_later(httpx.HTTPStatusError, asked, "404")
        await client.close()

    asyncio.run(story())


def kserve_grpc(address):
    import grpc
    from kserve import InferenceGRPCClient, InferInput, InferRequest

    async def story():
        client = InferenceGRPCClient(address)
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready(MODEL)
        for raw in (False, True):
            inputs = [InferInput(n, [2], d) for n, d in (("distance", "FP64"), ("hour", "INT64"), ("carrier", "BYTES"))]
            for tensor, values in zip(inputs, (DISTANCE, HOUR, CARRIER), strict=True):
                tensor.set_data_from_numpy(values, binary_data=raw)
            check_kserve(await client.infer(InferRequest(MODEL, inputs)))
        await raised_later(grpc.RpcError, client.infer(InferRequest("shop.none", inputs)), "NOT_FOUND")
        await client.close()

    asyncio.run(story())


def check_kserve(response):
    outputs = {output.name: output.as_numpy() for output in response.outputs}
    assert outputs["echo"].tolist() == [1.5, 2.5]
    assert [getattr(v, "decode", lambda v=v: v)() for v in outputs["carrier"].tolist()] == ["AA", "UA"]


ANSWERS = [{"echo": 1.5, "carrier": "AA"}, {"echo": 2.5, "carrier": "UA"}]


def frame():
    import pandas as pd

    return pd.DataFrame({"distance": [1.5, 2.5], "hour": [1, 2], "carrier": ["AA", "UA"]})


def mlflow_deployments(address):
    from mlflow.deployments import get_deploy_client

    client = get_deploy_client(f"http://{address}")
    (listed,) = client.list_endpoints()
    assert (listed.name, listed.endpoint_url) == (MODEL, f"http://{address}/endpoints/shop.delay/invocations")
    assert client.get_endpoint(MODEL).name == MODEL
    for name in (MODEL, "shop/delay"):
        answer = client.predict(endpoint=name, inputs={"dataframe_split": frame().to_dict("split")})
        assert answer["predictions"] == ANSWERS
    raised(Exception, lambda: client.get_endpoint("shop.none"), "no endpoint")


def mlflow_scoring(address):
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    host, _, port = address.partition(":")
    client = ScoringServerClient(host, f"{port}/endpoints/shop/delay")
    client.ping()
    assert client.get_version().count(".") == 2
    assert client.invoke(frame()).get_predictions().to_dict("records") == ANSWERS
    assert client.invoke(frame(), params={"temperature": 0.5}).get_predictions().to_dict("records") == ANSWERS


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2])
