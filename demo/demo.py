#!/usr/bin/env python3
"""The main job, shown: train and serve a real model in sealed containers, and see what the kernel refused.

Started by `./x demo`. Ends with exit code 0 only when everything it claims was observed.
"""
import argparse
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from rich.console import Console  # noqa: E402
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: E402
from rich.table import Table  # noqa: E402

from tests.harness.engine import WEB, Engine, digits_csv, execution_statements  # noqa: E402

LEAST_ACCURACY = 0.95
console = Console(highlight=False)
shown = []


def claim(holds, text):
    """Notes one thing the demo shows; a false one fails the demo."""
    shown.append((bool(holds), text))
    console.print(("[green]  ✓[/] " if holds else "[red]  ✗[/] ") + text)


def bar():
    return Progress(SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"), TimeElapsedColumn(), console=console, transient=True)


def wait(describe, status, busy, label, steps):
    """Follows a resource to its end, with a bar that advances by its published states."""
    with bar() as progress:
        task = progress.add_task(label, total=len(steps), state="")
        while True:
            seen = describe()
            state = seen.get("SecondaryStatus", seen[status])
            progress.update(task, completed=steps.index(state) + 1 if state in steps else len(steps), state=state)
            if seen[status] not in busy:
                return seen
            time.sleep(0.1)


def train(clients, image, role, bucket, name, isolated):
    sagemaker = clients["sagemaker"]
    sagemaker.create_training_job(
        TrainingJobName=name,
        AlgorithmSpecification={
            "TrainingImage": image, "TrainingInputMode": "File",
            "MetricDefinitions": [{"Name": "accuracy", "Regex": "accuracy=(.*?);"}, {"Name": "reached", "Regex": "reached=(.*?);"}],
        },
        RoleArn=role,
        InputDataConfig=[{"ChannelName": "train", "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{bucket}/digits/"}}}],
        OutputDataConfig={"S3OutputPath": f"s3://{bucket}/jobs"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10},
        StoppingCondition={"MaxRuntimeInSeconds": 600},
        EnableNetworkIsolation=isolated,
        HyperParameters={"planted": "true", "target": WEB, "least_accuracy": str(LEAST_ACCURACY)},
    )
    return wait(
        lambda: sagemaker.describe_training_job(TrainingJobName=name), "TrainingJobStatus", ("InProgress", "Stopping"),
        f"training job {name}", ["Starting", "Downloading", "Training", "Uploading", "Completed"],
    )


def metrics(job):
    return {metric["MetricName"]: metric["Value"] for metric in job.get("FinalMetricDataList", [])}


def demo(binary, rootfs):
    console.rule("[bold]Isolarium")
    with Engine(binary, {"tls.inject_ca": True}) as engine:
        console.print(f"engine at {engine.url}; the internet is namespace {engine.internet.name} with a web server on {WEB}")
        clients = {name: engine.client(name) for name in ("sagemaker", "sagemaker-runtime", "s3", "logs")}
        bucket = "demo-data"
        clients["s3"].create_bucket(Bucket=bucket)
        rows = digits_csv(rootfs)
        training, unseen = rows[:-200], rows[-200:]
        clients["s3"].put_object(Bucket=bucket, Key="digits/digits.csv", Body="\n".join(training).encode())
        role = engine.create_role("demo-execution", execution_statements(bucket))
        with console.status("packing the container image (Debian's Python, scikit-learn)"):
            image = engine.pack_image(rootfs, "digits:1")
        console.print(f"image {image}")

        console.rule("1. training without a network")
        job = train(clients, image, role, bucket, "digits-isolated", True)
        claim(job["TrainingJobStatus"] == "Completed", f"the isolated training job ended {job['TrainingJobStatus']} {job.get('FailureReason', '')}")
        got = metrics(job)
        claim(got.get("accuracy", 0) >= LEAST_ACCURACY, f"its model reached accuracy {got.get('accuracy', 0):.4f} (asked: {LEAST_ACCURACY})")
        claim(got.get("reached") == 0, "the planted dependency inside reached nothing")
        claim(engine.internet.arrivals() == [], "nothing arrived in the internet namespace")
        artifact = job["ModelArtifacts"]["S3ModelArtifacts"]
        key = artifact.removeprefix(f"s3://{bucket}/")
        size = clients["s3"].head_object(Bucket=bucket, Key=key)["ContentLength"]
        claim(size > 10_000, f"the platform fetched the artifact: {artifact} ({size:,} bytes)")

        console.rule("2. control: the same job without isolation")
        control = train(clients, image, role, bucket, "digits-open", False)
        reached = metrics(control).get("reached", 0)
        claim(reached > 0, f"without isolation the same code reached {reached:.0f} targets")
        claim(any(entry["kind"] == "tcp" for entry in engine.internet.arrivals()), "and its packets arrived in the internet namespace")
        arrived = len(engine.internet.arrivals())

        console.rule("3. serving without a network")
        sagemaker = clients["sagemaker"]
        sagemaker.create_model(
            ModelName="digits", ExecutionRoleArn=role, EnableNetworkIsolation=True,
            PrimaryContainer={"Image": image, "ModelDataUrl": artifact, "Environment": {"PLANTED": "true"}},
        )
        claim(sagemaker.describe_model(ModelName="digits")["EnableNetworkIsolation"] is True, "DescribeModel says EnableNetworkIsolation: true")
        sagemaker.create_endpoint_config(
            EndpointConfigName="digits",
            ProductionVariants=[{"VariantName": "AllTraffic", "ModelName": "digits", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}],
        )
        sagemaker.create_endpoint(EndpointName="digits", EndpointConfigName="digits")
        endpoint = wait(lambda: sagemaker.describe_endpoint(EndpointName="digits"), "EndpointStatus", ("Creating",), "endpoint digits", ["Creating", "InService"])
        claim(endpoint["EndpointStatus"] == "InService", f"the endpoint is {endpoint['EndpointStatus']} {endpoint.get('FailureReason', '')}")
        labels = [row.split(",", 1)[0] for row in unseen]
        body = "\n".join(row.split(",", 1)[1] for row in unseen)
        answer = clients["sagemaker-runtime"].invoke_endpoint(EndpointName="digits", ContentType="text/csv", Body=body)
        predicted = answer["Body"].read().decode().split()
        right = sum(a == b for a, b in zip(labels, predicted))
        claim(len(predicted) == len(labels) and right >= 0.9 * len(labels), f"InvokeEndpoint labelled {right} of {len(labels)} unseen digits rightly")
        claim(len(engine.internet.arrivals()) == arrived, "the planted dependency of the served model reached nothing either")

        console.rule("4. the isolation report")
        for name in ("digits-isolated", "digits"):
            report = engine.run("report", name)
            console.print(report.stdout.rstrip(), soft_wrap=True)
            seen = {(entry["protocol"], entry["address"]) for entry in engine.attempts(name)}
            claim(("tcp", WEB) in seen and any(protocol == "dns" for protocol, _ in seen), f"the report of {name} names the refused TCP and DNS attempts")
        sagemaker.delete_endpoint(EndpointName="digits")
        with console.status("cleaning up"):
            while True:
                try:
                    sagemaker.describe_endpoint(EndpointName="digits")
                    time.sleep(0.1)
                except sagemaker.exceptions.ClientError:
                    break

    console.rule("what this showed")
    table = Table(show_header=False, box=None)
    for holds, text in shown:
        table.add_row("[green]✓[/]" if holds else "[red]✗[/]", text)
    console.print(table)
    return 0 if all(holds for holds, _ in shown) else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True, help="path of the isolarium binary")
    parser.add_argument("--rootfs", required=True, help="container root made by demo/build-image.sh")
    arguments = parser.parse_args()
    # SIGTERM takes the same way out as Ctrl-C, so that nothing stays behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return demo(arguments.binary, arguments.rootfs)
    except KeyboardInterrupt:
        console.print("\n[yellow]interrupted; everything the demo made was removed[/]")
        return 130


if __name__ == "__main__":
    sys.exit(main())
