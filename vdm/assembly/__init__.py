"""The whole model: made of its parts, built from a configuration, loaded from a run or from published weights."""

from vdm.assembly.load import load_trained as load_trained
from vdm.assembly.model import VideoDiffusionModel as VideoDiffusionModel
