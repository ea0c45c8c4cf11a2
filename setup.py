"""Says where the packages lie: `models`, `tasks` and `hub_cards` stand beside `avplatform`.

They are installed inside it, as `avplatform.models` and so on, because nearly every research
repository has folders of these names. All other facts are in pyproject.toml.
"""

from setuptools import find_packages, setup

BESIDE = ("models", "tasks", "hub_cards")

packages = find_packages(include=["avplatform", "avplatform.*"])
for name in BESIDE:
    packages += [f"avplatform.{package}" for package in find_packages(include=[name, f"{name}.*"])]
setup(packages=packages, package_dir={f"avplatform.{name}": name for name in BESIDE})
