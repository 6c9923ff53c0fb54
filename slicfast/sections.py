"""The sections of a configuration: every key with its type, its default and a word on it.

Every default of the project is written here and nowhere else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Of the clusterers that need them, as the paper's comparison sets them.
MAX_DISTANCE = {"agglomerative": 0.24, "dbscan": 0.14, "optics": 0.20}
MIN_SAMPLES = {"dbscan": 2, "optics": 3}

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]


class Section(BaseModel):
    """A group of keys; unknown keys are errors and values cannot be changed after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class DataConfig(Section):
    store: Path = Path("data/store")
    # Where clips are read: the store, the original files, or memory; auto: memory where pictures fit into it
    source: Literal["store", "files", "resident", "auto"] = "store"
    files: Path | None = None  # the folder of the original files; None: as the store keeps them
    # What memory holds of the training videos: pictures, or the store's bytes; auto: the first that fits
    resident_as: Literal["auto", "decoded", "compressed"] = "auto"
    memory_share: Probability = 0.5  # of the memory that is free, what this may take
    train_split: str = "train"  # a split of the store, or a difference of two: "train1-test2"
    clip_length: Annotated[int, Field(ge=2)] = 16  # frames
    clip_stride: PositiveInt = 1  # frames between two frames of a clip
    crop_size: Annotated[int, Field(ge=8)] = 128  # pixels, square
    min_frames: PositiveInt | None = None  # None: two clips side by side, 2 * length * stride
    num_threads: NonNegativeInt = 0  # decoding threads; 0: one per core this process may use
    prefetch: PositiveInt = 2  # batches ready ahead of the step
    max_bad_share: Probability = 0.01  # stop when more clips than this were replaced as damaged
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[Positive, Positive, Positive] = IMAGENET_STD

    @property
    def clip_span(self) -> int:
        """Frames from the first to one past the last frame of a clip."""
        return (self.clip_length - 1) * self.clip_stride + 1

    @property
    def min_training_frames(self) -> int:
        """Shorter videos take no part in training."""
        return self.min_frames or 2 * self.clip_length * self.clip_stride


class AugmentConfig(Section):
    """One draw a clip, the same for its frames (method: random resized crop, flip, jitter, grey, blur)."""

    min_area: Annotated[float, Field(gt=0.0, le=1.0)] = 0.25
    max_area: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    min_aspect: Positive = 3 / 4
    max_aspect: Positive = 4 / 3
    flip_prob: Probability = 0.5
    # exact: operators in a drawn order, hue in HSV, 8 bit after each; fast: one affine map of the same draws
    colour: Literal["exact", "fast"] = "exact"
    jitter_prob: Probability = 0.8
    brightness: Probability = 0.5
    contrast: Probability = 0.5
    saturation: Probability = 0.5
    hue: Annotated[float, Field(ge=0.0, le=0.5)] = 0.5  # turns; 0.5 reaches every hue
    grey_prob: Probability = 0.2
    blur_prob: Probability = 0.2
    blur_kernel: PositiveInt = 15  # pixels, odd
    blur_sigma: Positive = 2.0  # pixels

    @model_validator(mode="after")
    def _ordered(self) -> AugmentConfig:
        if self.min_area > self.max_area:
            raise ValueError(f"min_area {self.min_area} is above max_area {self.max_area}")
        if self.min_aspect > self.max_aspect:
            raise ValueError(f"min_aspect {self.min_aspect} is above max_aspect {self.max_aspect}")
        if self.blur_kernel % 2 == 0:
            raise ValueError(f"blur_kernel must be odd; got {self.blur_kernel}")
        return self


class MotionConfig(Section):
    view: Literal["none", "difference", "flow"] = "difference"  # flow: see flow.source
    components: Literal["horizontal", "both"] = (
        "horizontal"  # of the flow; stored, both is prepare --flow-both
    )
    prob: Probability = 0.25  # for the positive and for anchor_again, each
    gain: Positive = 4.0  # frame difference times this, around grey


class FlowConfig(Section):
    # stored: read what prepare --flow made; hardware: computed while loading, by a GPU's optical-flow engine
    source: Literal["stored", "hardware"] = "stored"
    # As the published code: the photometric draw applied to flow too, u neither scaled nor negated.
    faithful: bool = False


class SamplingConfig(Section):
    same_video_prob: Probability = 0.2  # of a positive from the anchor's own video
    # same_video_prob = 1 - NMI of the last two clusterings; misleads with many small clusters (clustering.md)
    adaptive: bool = False
    anchor_start: Literal["first", "random"] = "first"


class ModelConfig(Section):
    # Any name in timm's registry that makes a video backbone, or inflated:NAME of an image network there.
    name: str = "slic_r3d_18"
    # What inflated: networks start from, unless train.init_from is set: timm (downloads the image network's
    # weights), or a file of them.
    image_weights: str | None = None
    width: Positive = 1.0  # channels times this
    max_pool: bool = False  # after the stem
    conv1_temporal_stride: PositiveInt = 1
    conv1_temporal_size: PositiveInt | None = None  # frames of the first kernel; null: 7, of R(2+1)D 3
    # How the first convolution is computed; always the same function of the same weights.
    stem: Literal["direct", "padded", "space_to_depth"] = "direct"
    projection_hidden: PositiveInt = 2048
    projection_dim: PositiveInt = 128
    projection_norm: bool = False  # BatchNorm without affine parameters on the projection's output


class LossConfig(Section):
    """A weighted sum of terms; one of weight 0 is not computed, and clips that only it needs not loaded."""

    # Anchors and positives by label: a triplet loss with one negative a pair; InfoNCE with some semi-hard
    # negatives a pair (all_semi_hard); or NT-Xent against the whole batch (noise_contrastive).
    triplet_weight: NonNegative = 1.0
    negatives: Literal[
        "random_negative", "random_semi_hard", "fixed_semi_hard", "all_semi_hard", "noise_contrastive"
    ] = "random_semi_hard"
    margin: NonNegative = 0.2  # triplet, memory triplet; what is semi-hard
    num_negatives: PositiveInt = 5  # all_semi_hard: of each pair
    temperature: Positive = 0.5  # all_semi_hard, noise_contrastive
    gather_negatives: bool = False  # negatives from all ranks, with gradients
    # The anchor's window augmented anew lies closer than the positive.
    temporal_weight: NonNegative = 1.0
    temporal_margin: NonNegative = 0.04
    # The positive lies closer than its video at twice the speed.
    relative_speed_weight: NonNegative = 0.0  # the method takes 1
    relative_speed_margin: NonNegative = 0.1
    # The positive lies closer than a window of the anchor's video with its frames shuffled.
    intra_negative_weight: NonNegative = 0.0  # the method takes 0.4
    intra_negative_margin: NonNegative = 0.04
    # Triplets with negatives among the anchors of earlier steps.
    memory_triplet_weight: NonNegative = 0.0
    memory_triplet_size: PositiveInt = 40  # anchors remembered
    memory_triplet_hardest: Annotated[float, Field(gt=0.0, le=1.0)] = 0.05  # share drawn from
    memory_triplet_skipped: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.001  # share left out as too hard
    # Two memories of every video, of pictures and of frame differences, each against the other's view.
    nce_weight: NonNegative = 0.0
    nce_form: Literal["softmax", "logistic"] = "softmax"  # IIC's default; Wu et al.'s estimation
    nce_num_negatives: PositiveInt = 1024
    nce_temperature: Positive = 0.07
    nce_momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.5  # of a video's memory
    # A queue of keys that a slowly following encoder makes of the positives.
    moco_weight: NonNegative = 0.0  # InfoNCE: a queue's keys are negatives
    uber_nce_weight: NonNegative = 0.0  # supervised: a queue's keys of the anchor's label are positives
    queue_size: PositiveInt = 2048  # keys
    key_momentum: Annotated[float, Field(ge=0.0, le=1.0)] = 0.999  # of the key encoder's weights
    key_temperature: Positive = 0.07

    @model_validator(mode="after")
    def _has_a_term(self) -> LossConfig:
        if not any(getattr(self, name) for name in type(self).model_fields if name.endswith("_weight")):
            raise ValueError("every loss.*_weight is 0; there is nothing to train")
        if self.memory_triplet_skipped >= self.memory_triplet_hardest:
            raise ValueError(
                f"memory_triplet_skipped {self.memory_triplet_skipped} must be below"
                f" memory_triplet_hardest {self.memory_triplet_hardest}"
            )
        return self


class OptimConfig(Section):
    name: str = "momentum"  # timm's names: momentum is plain SGD, sgd adds Nesterov; adamw, lamb, ...
    lr: Positive = 0.1
    lr_reference_batch: PositiveInt | None = None  # set: lr is multiplied by batch_size / this
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.5
    weight_decay: NonNegative = 0.0
    schedule: Literal["constant", "cosine", "steps"] = "constant"
    milestones: tuple[Probability, ...] = (
        60 / 150,
        100 / 150,
    )  # steps: lr / 10 after these shares of all epochs
    warmup_epochs: NonNegativeInt = 0
    clip_grad_norm: Positive | None = None
    fused: bool = True  # one kernel for all parameters, where the optimizer has one


class ClusterConfig(Section):
    method: Literal["finch", "kmeans", "spherical_kmeans", "agglomerative", "dbscan", "optics", "none"] = (
        "finch"
    )
    interval: PositiveInt = 5  # epochs between two clusterings
    start_epoch: NonNegativeInt = 0  # before it every video is its own cluster
    partition: NonNegativeInt = 0  # FINCH level, 0 the finest
    finch_clusters: Annotated[int, Field(ge=2)] | None = None  # FINCH: so many clusters, in place of a level
    mutual: bool = False  # FINCH: link only videos that are each other's first neighbours
    # Positives from this FINCH level within a cluster, negatives from other clusters; None: both by cluster
    positive_partition: NonNegativeInt | None = None
    num_clusters: Annotated[int, Field(ge=2)] = 1000  # k-means family
    num_iterations: PositiveInt = 20
    num_starts: PositiveInt = 1
    balanced: bool = False  # k-means family: clusters of the same size, up to one video
    # auto: the fastest measured, torch where nothing was; cuml computes kmeans only
    backend: Literal["auto", "torch", "cupy", "cuml"] = "auto"
    warm_start: bool = True  # k-means: from the previous round's centroids
    # Cosine distance at which clusters end; None: agglomerative 0.24, dbscan 0.14, optics 0.2
    max_distance: Positive | None = None
    # dbscan and optics: rows within max_distance, itself among them, that make a row a core; None: 2 and 3
    min_samples: PositiveInt | None = None
    features: Literal["projection", "pooled"] = "projection"
    # fresh: every training video is embedded anew; running: what the anchors of the last epoch left behind
    bank: Literal["fresh", "running"] = "fresh"
    num_clips: PositiveInt = 1  # of a video, evenly spaced, whose mean is clustered; 1: the centre clip
    use_ema: bool = True  # a fresh bank is of the averaged weights, where ema.decay keeps some

    @model_validator(mode="after")
    def _bank_has_features(self) -> ClusterConfig:
        if self.bank == "running" and self.features != "projection":
            raise ValueError("bank=running holds projections; set cluster.features=projection or bank=fresh")
        if self.bank == "running" and self.num_clips != 1:
            raise ValueError(
                f"bank=running holds one clip a video, num_clips is {self.num_clips}; set bank=fresh"
            )
        return self

    @model_validator(mode="after")
    def _positives_are_finer(self) -> ClusterConfig:
        by_level = self.method == "finch" and self.finch_clusters is None
        if by_level and self.positive_partition is not None and self.positive_partition >= self.partition:
            raise ValueError(
                f"positive_partition {self.positive_partition} must be a finer FINCH level than partition"
                f" {self.partition}; 0 is the finest, so set cluster.partition to 1 or more"
            )
        return self

    @model_validator(mode="after")
    def _backend_has_method(self) -> ClusterConfig:
        if self.method == "none":  # as in fine-tuning, which keeps the other keys of its run
            return self
        if self.backend == "cuml" and self.method != "kmeans":
            raise ValueError(
                f"backend=cuml computes kmeans only, not {self.method}; take torch, cupy or auto"
            )
        if self.mutual and self.method != "finch":
            raise ValueError(f"mutual is for finch; method is {self.method}")
        if self.balanced and (self.backend == "cuml" or "kmeans" not in self.method):
            raise ValueError(
                f"balanced is for kmeans and spherical_kmeans with a backend other than cuml; method is"
                f" {self.method}, backend {self.backend}"
            )
        if self.backend == "cupy" and self.method in MAX_DISTANCE:
            raise ValueError(f"scikit-learn computes {self.method}, not backend=cupy; take auto")
        return self


class EvalConfig(Section):
    """Retrieval: IIC's protocol (10 clips a video, mean embedding, cosine)."""

    query_split: str | None = None  # None: no validation during training
    gallery_split: str | None = None  # None: the training split; the same as query_split: leave one out
    interval: PositiveInt = 10  # epochs between two validations
    num_clips: PositiveInt = 10
    resize: tuple[PositiveInt, PositiveInt] | None = (
        None  # rows, columns; None: 128 x 171 scaled with crop_size
    )
    batch_size: PositiveInt = 32  # clips a forward pass, here and in clustering
    features: Literal["projection", "pooled"] = "pooled"  # decides which checkpoint is best


class ProbeConfig(Section):
    """Supervised training on top of an encoder, frozen (linear probe) or not (fine-tuning): CoCLR's recipe.

    Adam, the rate divided by 10 at `optim.milestones`.
    """

    epochs: PositiveInt = 150
    batch_size: Annotated[int, Field(ge=2)] = 32  # clips, one of each video
    lr: Positive = 1e-3
    backbone_lr_scale: NonNegative = 0.1  # fine-tuning: the backbone's rate is this times lr
    weight_decay: NonNegative = 1e-3
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9  # before the linear layer


class TrainConfig(Section):
    epochs: PositiveInt = 600
    batch_size: Annotated[int, Field(ge=2)] = (
        32  # samples a step over all ranks; a sample is two or three clips
    )
    accumulation_steps: PositiveInt = 1  # a step is computed in this many parts
    device: Literal["auto", "cpu", "cuda"] = "auto"
    # auto: bf16 where the processor computes it natively; fp16 scales the loss, for GPUs before Ampere
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    compile: bool = False  # torch.compile: fuses chains of small operators; the first step takes a minute
    cuda_graph: bool = False  # record a step's kernels once and launch them together; on one GPU
    # let cuDNN try its algorithms and keep the fastest; a run that goes on may differ in rounding then
    cudnn_benchmark: bool = False
    init_from: Path | None = None  # weights of another checkpoint
    log_interval: PositiveInt = 10  # steps
    nan_check_interval: PositiveInt = 10  # steps
    checkpoint_interval: PositiveInt = 200  # steps between two writes of checkpoints/last.pt
    keep_every_epochs: PositiveInt | None = None  # also keep a checkpoint of its own every so many epochs
    keep_requests: PositiveInt = 16  # batches whose request lists are kept for a post-mortem
    num_torch_threads: NonNegativeInt = 0  # 0: torch's choice


class EmaConfig(Section):
    """The encoder's weights averaged by timm's ModelEmaV3, under its names; steps are the optimizer's."""

    decay: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None  # share kept at a step; None: no average
    min_decay: Probability = 0.0  # use_warmup: no lower than this
    update_after_step: NonNegativeInt = 0  # up to this step the average is a copy of the weights
    use_warmup: bool = False  # decay grows with the step n: 1 - (1 + n / warmup_gamma) ** -warmup_power
    warmup_gamma: Positive = 1.0
    warmup_power: Positive = 2 / 3
    exclude_buffers: bool = False  # copy BatchNorm's running statistics instead of averaging them

    @model_validator(mode="after")
    def _says_what_it_does(self) -> EmaConfig:
        fields = type(self).model_fields.items()
        changed = [name for name, field in fields if getattr(self, name) != field.default]
        if self.decay is None and changed:
            raise ValueError(f"{changed[0]} does nothing while decay is null; set ema.decay, to 0.999 say")
        if self.decay is not None and self.min_decay > self.decay:
            raise ValueError(f"min_decay {self.min_decay} is above decay {self.decay}")
        return self


class LoggingConfig(Section):
    """Curves beside metrics.jsonl, which is always written."""

    tensorboard: bool = False  # event files in the run folder's tensorboard/
    wandb_project: str | None = None  # log to this project of Weights & Biases; WANDB_MODE=offline works too
    wandb_name: str | None = None  # None: the run folder's name
