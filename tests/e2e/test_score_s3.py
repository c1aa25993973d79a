"""Reading from and writing to S3, with the real command, against both kinds of store."""

from __future__ import annotations

import glob
import io
import json
import os

import numpy as np
import pytest

from tests.support import check, tiny
from tests.support.processes import score, short_folder
from tests.support.servers import CREDENTIALS, conditional_s3, make_bucket, plain_s3

IDS = np.arange(4000)


@pytest.fixture(params=[conditional_s3, plain_s3], ids=["conditional", "plain"])
def endpoint(request):
    with request.param() as url:
        yield url


def s3(endpoint):
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
    )


def download(client, bucket, prefix, folder):
    """Every object below a prefix, as a local file of its last name."""
    os.makedirs(folder)
    for entry in client.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", ()):
        client.download_file(
            bucket, entry["Key"], os.path.join(folder, os.path.basename(entry["Key"]))
        )


def test_from_bucket_to_bucket_then_again(endpoint, bundle, tmp_path):
    client, bucket = s3(endpoint), make_bucket(endpoint, "lake")
    tiny.make_data(str(tmp_path / "data"), 4, 1000, row_group_rows=250)
    for name in sorted(glob.glob(str(tmp_path / "data" / "*"))):
        client.upload_file(name, bucket, f"day=1/it's %20 [odd]/{os.path.basename(name)}")
    client.upload_fileobj(io.BytesIO(b""), bucket, "day=1/_SUCCESS")
    for folder, _, names in os.walk(bundle):
        for name in names:
            path = os.path.join(folder, name)
            client.upload_file(path, bucket, "models/tiny/" + os.path.relpath(path, bundle))
    config = {
        "bundle": "s3://lake/models/tiny",
        "input": "s3://lake/day=1",
        "output": "s3://lake/out",
        "keep": "id",
        "shard-mib": 0.005,
        "num-gpus": 2,
        "storage-options": {"endpoint_url": endpoint},
    }
    (tmp_path / "score.yaml").write_text(json.dumps(config))

    with short_folder() as ray_folder:
        environment = {**CREDENTIALS, "RAY_TMPDIR": ray_folder}
        status, report, err = score("--config", tmp_path / "score.yaml", **environment)
        assert status == 0, err
        assert ("does not refuse to overwrite" in err) == (not honours_conditions(client, bucket))
        download(client, bucket, "out/part-", str(tmp_path / "out"))
        check.assert_exact(str(tmp_path / "out"), IDS, tiny.expected(IDS))
        assert report["shards"] > 4
        keys = [e["Key"] for e in client.list_objects_v2(Bucket=bucket, Prefix="out/")["Contents"]]
        assert "out/_SUCCESS" in keys
        assert not [key for key in keys if "/probe/" in key or "/tmp/" in key]
        assert not client.list_multipart_uploads(Bucket=bucket).get("Uploads")

        # One part is lost with its ledger: the same command scores that one and no other.
        etags = {e["Key"]: e["LastModified"] for e in
                 client.list_objects_v2(Bucket=bucket, Prefix="out/part-")["Contents"]}  # fmt: skip
        for key in keys:
            if "/ledger/" in key or key in ("out/_SUCCESS", sorted(etags)[2]):
                client.delete_object(Bucket=bucket, Key=key)
        status, report, err = score("--config", tmp_path / "score.yaml", **environment)
        assert status == 0, err
        assert (report["shards_scored"], report["shards_adopted"]) == (1, report["shards"] - 1)
        after = {e["Key"]: e["LastModified"] for e in
                 client.list_objects_v2(Bucket=bucket, Prefix="out/part-")["Contents"]}  # fmt: skip
        assert {k for k in etags if etags[k] != after[k]} == {sorted(etags)[2]}


def honours_conditions(client, bucket):
    from botocore.exceptions import ClientError

    def add_condition(params, **_):
        params["headers"]["If-None-Match"] = "*"

    client.put_object(Bucket=bucket, Key="probe-of-the-test", Body=b"1")
    client.meta.events.register("before-call.s3.PutObject", add_condition)
    try:
        client.put_object(Bucket=bucket, Key="probe-of-the-test", Body=b"2")
        return False
    except ClientError:
        return True
    finally:
        client.meta.events.unregister("before-call.s3.PutObject", add_condition)


def test_a_bucket_that_is_not_there_is_told_before_ray_starts(bundle, tmp_path):
    with conditional_s3() as endpoint:
        config = {"bundle": bundle, "input": "s3://none/day=1", "output": "s3://none/out",
                  "storage-options": {"endpoint_url": endpoint}}  # fmt: skip
        (tmp_path / "score.yaml").write_text(json.dumps(config))
        status, report, err = score("--config", tmp_path / "score.yaml", **CREDENTIALS)
    assert (status, report) == (2, None)
    assert "NoSuchBucket" in err
    assert "the bucket does not exist" in err
