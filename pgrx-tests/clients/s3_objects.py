"""Copies the objects of a bucket into a directory: s3_objects.py ENDPOINT BUCKET DIRECTORY; makes the bucket without the last."""

import pathlib
import sys

import boto3

s3 = boto3.client("s3", endpoint_url=sys.argv[1], region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
bucket = sys.argv[2]
if len(sys.argv) == 3:
    s3.create_bucket(Bucket=bucket)
    sys.exit()
for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
    for found in page.get("Contents", []):
        path = pathlib.Path(sys.argv[3], found["Key"])
        path.parent.mkdir(parents=True, exist_ok=True)
        s3.download_file(bucket, found["Key"], str(path))
