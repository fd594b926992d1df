"""Reads what a container of the service `posthaste` would get: container.py COMPOSE DOCKERFILE FOLDER.

Writes to FOLDER: environment, command, healthcheck (items end with a NUL), user, hosts, postgres-password.
"""

import json
import re
import sys

import yaml

compose_file, dockerfile, folder = sys.argv[1:]
with open(compose_file, encoding="utf-8") as file:
    services = yaml.safe_load(file)["services"]
with open(dockerfile, encoding="utf-8") as file:
    image = file.read().rsplit("\nFROM ", 1)[1]
service = services["posthaste"]

assert service["read_only"] is True, "the root must be read-only"
assert service["cap_drop"] == ["ALL"] and "no-new-privileges:true" in service["security_opt"]
assert re.search(r"^USER (\S+)$", image, re.M)[1] == service["user"], "image and compose file name different users"
entrypoint = json.loads(re.search(r"^ENTRYPOINT (.*)$", image, re.M)[1])
environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/"}
environment.update(re.findall(r"^ENV (\w+)=(\S+)$", image, re.M))
environment.update(service["environment"])
healthcheck = service["healthcheck"]["test"]
assert healthcheck[0] == "CMD", "the image has no shell"


def write(name, text):
    with open(f"{folder}/{name}", "w", encoding="utf-8") as file:
        file.write(text)


def write_items(name, items):
    write(name, "".join(f"{item}\0" for item in items))


write_items("environment", [f"{name}={value}" for name, value in environment.items()])
write_items("command", entrypoint + service["command"])
write_items("healthcheck", healthcheck[1:])
write("user", service["user"])
write("hosts", "127.0.0.1 localhost postgres\n")
write("postgres-password", services["postgres"]["environment"]["POSTGRES_PASSWORD"])
