"""What the paper claims (C1 .. C39), and what reading notes and the 2012 program's logs say beyond it (N1 ..).

Errors are top-1 and top-5 unless said otherwise; differences of errors are in percentage points. "145" and other bare numbers
are configurations of the 2012 program, whose logged errors were measured with ten views. Who invented what is not here: data
cannot decide it.
"""

from __future__ import annotations

from dataclasses import dataclass

from alexnet.core.errors import UsageError, printable


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One sentence that data, or a count, could prove wrong."""

    id: str
    """C1 .. C39: the paper. N1 ..: beyond the paper."""
    section: str
    """Section of the paper; for N.. "notes" or "2012 program"."""
    sentence: str
    """The claim in our words."""
    printed: str = ""
    """Its numbers as the paper, or the notes, print them; empty: none."""
    logged: str = ""
    """What the 2012 program's files show; empty: nothing."""
    decides: str = ""
    """Which arms, which measure and which data decide it."""
    untested: str = ""
    """Why no experiment of this package decides it; empty: one does, or what is printed does."""
    elsewhere: str = ""
    """What results of this project outside of the claims' experiments say of it, with their files; empty: nothing."""


_FULL_RUN = (
    "An absolute error needs the whole ILSVRC set and the full schedule: the recipes paper2012 and code2012 are "
    "complete, but no result here comes from them."
)

_PAPER = (
    Claim(
        id="C1",
        section="abstract, Table 1",
        sentence="On the test images of ILSVRC-2010 one network is wrong in 37.5 % of its first answers, and misses "
        "the right class among its best five in 17.0 %.",
        printed="37.5 % top-1, 17.0 % top-5",
        logged="37.47 %, 17.00 % (145-2010, ten views)",
        decides="code2012 trained on ILSVRC-2010, ten views, its public test labels.",
        untested=_FULL_RUN,
    ),
    Claim(
        id="C2",
        section="abstract",
        sentence="The network has 60 million parameters and 650,000 neurons.",
        printed="60 million, 650,000",
        logged="60,965,224 and 659,272, counted on 145",
        decides="A count on the network that is built.",
    ),
    Claim(
        id="C3",
        section="abstract, 6",
        sentence="A variant of the network won ILSVRC-2012 with a top-5 test error of 15.3 %; the second-best entry "
        "had 26.2 %.",
        printed="15.3 % against 26.2 %, top-5, test",
        decides="The seven-network ensemble of C31 on the test images of 2012, beside the runner-up.",
        untested="The test labels of ILSVRC-2012 are not public, and the runner-up is another group's system.",
    ),
    Claim(
        id="C4",
        section="1, 5",
        sentence="Training took five to six days on two GTX 580 graphics cards of 3 GB.",
        printed="5 to 6 days, 2 x GTX 580 3 GB",
        decides="The wall time of the full run on that hardware. By count it is 4.8e17 floating-point operations: a "
        "sustained 1.0e12 a second over 5.5 days.",
        untested="There is no such hardware here. `alexnet bench` forecasts the same run on the machine at hand.",
    ),
    Claim(
        id="C5",
        section="1",
        sentence="Depth matters: taking out any one convolutional layer, each with at most 1 % of the parameters, "
        "makes the network worse.",
        printed="at most 1 % of the parameters each",
        decides="The share of parameters of each layer, counted; and for each of conv2 to conv5 one arm without it "
        "against all five, test error, paired seeds.",
    ),
    Claim(
        id="C6",
        section="7",
        sentence="Taking out any one of the middle layers costs about 2 points of top-1 error.",
        printed="about 2 points, top-1",
        decides="Arms without conv3 and without conv4 against all five, same schedule, top-1 error, paired seeds; "
        "the size only on ImageNet.",
    ),
    Claim(
        id="C7",
        section="3.1, Figure 1",
        sentence="A four-layer network on CIFAR-10 comes down to 25 % training error six times sooner with ReLU than "
        "with tanh.",
        printed="6 times fewer epochs",
        decides="Epochs to 25 % training error on CIFAR-10, ReLU against tanh, no regularization, the rate chosen "
        "for each arm out of four. The network of Figure 1 is in no published file; cifar_19pct, which has four "
        "layers, stands in.",
    ),
    Claim(
        id="C8",
        section="3.2",
        sentence="Two towers with all kernels make fewer errors than one tower with half the kernels in each "
        "convolutional layer but the last.",
        printed="1.7 points top-1, 1.2 points top-5",
        logged="1.70, 1.23 (145-half against 145-2010)",
        decides="alexnet_2012 against alexnet_2012_one_tower, test error, paired seeds. The comparison favors one "
        "tower, which keeps the whole width of conv5, fc6 and fc7.",
    ),
    Claim(
        id="C9",
        section="3.2",
        sentence="On two graphics cards the two-tower network trains slightly faster than the half-sized network on "
        "one.",
        printed="slightly less time",
        decides="Seconds of a training step on two cards and on one. By count, without the exchange, each of the two "
        "does 362 million multiply-adds an image forward, the single one 392 million.",
        untested="It takes two cards; on one device both networks can be timed, which is another claim.",
    ),
    Claim(
        id="C10",
        section="3.3",
        sentence="Local response normalization after the first two layers makes the network better.",
        printed="1.4 points top-1, 1.2 points top-5",
        logged="1.37, 1.15 (148 against 145; 148 leaves out three normalizers, one of which the paper does not "
        "mention)",
        decides="With against without normalization, nothing else changed, test error, paired seeds.",
    ),
    Claim(
        id="C11",
        section="3.3",
        sentence="The constants of the normalization are k = 2, n = 5, alpha = 1e-4 on the sum of squares, beta = "
        "0.75.",
        printed="k 2, n 5, alpha 1e-4, beta 0.75",
        logged="the program divides alpha by n: 2e-5 on the sum; k is 2 in 145 and 1 before configuration 134",
        decides="The coefficients that the networks of the text and of the program compute with; and arms with alpha "
        "on the sum and on the mean, and with k = 1.",
    ),
    Claim(
        id="C12",
        section="3.3",
        sentence="On CIFAR-10, normalization takes a four-layer network from 13 % to 11 % test error.",
        printed="13 % to 11 %",
        logged="the published files layers-conv-local-13pct and -11pct also differ in the width of local3 (32, 64) "
        "and in the decay of fc10 (0.004, 0.01)",
        decides="cifar_11pct with its two normalizers against the same without them, CIFAR-10 test error, paired "
        "seeds.",
    ),
    Claim(
        id="C13",
        section="3.4",
        sentence="Overlapping pooling windows (3 x 3, stride 2) give fewer errors than 2 x 2 with stride 2, and "
        "slightly less overfitting.",
        printed="0.4 points top-1, 0.3 points top-5",
        logged="0.39, 0.30 (147 against 145; 147 also pads conv2 and conv5 less)",
        decides="Windows of 3 and of 2 pixels at stride 2, nothing else changed: test error, and test less training "
        "error.",
    ),
    Claim(
        id="C14",
        section="3.5",
        sentence="The five convolutional layers have 96, 256, 384, 384 and 256 kernels, the fully connected ones "
        "4096, 4096 and 1000 units.",
        printed="96-256-384-384-256, 4096-4096-1000",
        logged="the same (145)",
        decides="The shapes that the network gives for one image.",
    ),
    Claim(
        id="C15",
        section="Figure 2",
        sentence="The input has 150,528 values; the layers after it have 253,440, 186,624, 64,896, 64,896, 43,264, "
        "4096, 4096 and 1000 neurons.",
        printed="150,528; 253,440-186,624-64,896-64,896-43,264-4096-4096-1000",
        logged="290,400 in conv1 (145: 55 x 55 maps of 96 kernels)",
        decides="The shapes that the network gives for one image of 224 pixels.",
    ),
    Claim(
        id="C16",
        section="4.1",
        sentence="Random crops and mirror images make the training set 2,048 times larger; without them the network "
        "overfits substantially.",
        printed="2,048 times",
        logged="offsets 0 to 32 both ways: 2,178",
        decides="A count of places; and crops and mirror against the center alone: test error, and test less "
        "training error, paired seeds.",
    ),
    Claim(
        id="C17",
        section="4.1",
        sentence="A prediction averages the softmax over ten views: the four corners and the center of the image, "
        "and their mirror images.",
        printed="10 views",
        logged="offsets (0,0), (0,32), (16,16), (32,0), (32,32), each mirrored too; probabilities summed and divided "
        "by 10",
        decides="The views that evaluation cuts. What they gain is C26.",
    ),
    Claim(
        id="C18",
        section="4.1",
        sentence="Noise along the principal components of RGB lowers the top-1 error by over 1 point.",
        printed="over 1 point top-1, standard deviation 0.1",
        logged="no run without it; the program multiplies by standard deviations, not by the eigenvalues of the "
        "printed formula, and ends the noise near epoch 67",
        decides="The size of the printed noise, computed; and with against without noise, top-1 error, paired seeds. "
        "Other readings of the formula are N12.",
    ),
    Claim(
        id="C19",
        section="4.2",
        sentence="Dropout of half of the units in the first two fully connected layers prevents substantial "
        "overfitting and about doubles the iterations to converge.",
        printed="about 2 times the iterations",
        decides="With and without dropout: test error, test less training error, and epochs to the same training loss.",
    ),
    Claim(
        id="C20",
        section="5",
        sentence="The network is trained by stochastic gradient descent with batches of 128, momentum 0.9 and weight "
        "decay 0.0005, by the rule printed there.",
        printed="batch 128, momentum 0.9, decay 0.0005",
        logged="the same (145); biases are not decayed, which the paper does not say",
        decides="The printed rule beside torch's, step for step; and momentum 0.9 against none. Batches are N16.",
    ),
    Claim(
        id="C21",
        section="5",
        sentence="Weight decay is more than a regularizer: it lowers the training error.",
        decides="Decay 0.0005 against 0, training error measured on the same images without augmentation, paired "
        "seeds.",
    ),
    Claim(
        id="C22",
        section="5",
        sentence="Weights start at a standard deviation of 0.01 in every layer; biases of 1 in conv2, conv4, conv5, "
        "fc6 and fc7 speed up the first stages of learning.",
        printed="standard deviation 0.01; biases 1 and 0",
        logged="0.03 in conv3, conv4 and conv5 (145)",
        decides="Biases at 1, 0.1 and 0: training loss over the first epochs, paired seeds. Larger weights are N15.",
    ),
    Claim(
        id="C23",
        section="5",
        sentence="The rate starts at 0.01, equal for all layers, and is divided by 10 three times in about 90 "
        "epochs, each time the validation error stops improving.",
        printed="0.01, three drops by 10, about 90 epochs",
        logged="biases start at 0.02 and follow the first drop at most; conv1 is slowed near epoch 67 and frozen "
        "near 72; drops at 25, 51 and 79 of 91 epochs (145)",
        decides="The plateau rule against the logged table, same number of epochs, test error. Other schedules are "
        "N19.",
    ),
    Claim(
        id="C24",
        section="Table 1",
        sentence="The best result in the competition of 2010, an average of six sparse-coding models, had errors of "
        "47.1 % and 28.2 %.",
        printed="47.1 % top-1, 28.2 % top-5",
        decides="Those six models on the test images of 2010.",
        untested="Another group's system, not rebuilt here.",
    ),
    Claim(
        id="C25",
        section="Table 1",
        sentence="The best published result on ILSVRC-2010 before, an average of two classifiers on Fisher vectors "
        "of SIFT, had errors of 45.7 % and 25.7 %.",
        printed="45.7 % top-1, 25.7 % top-5",
        decides="Fisher vectors of dense SIFT with linear classifiers, and simpler methods on pixels, against AlexNet on "
        "the same data: whether the network is ahead; not the printed errors, which are another group's.",
        elsewhere="On 7,000 photographs (Imagenette, one run each) the network is behind: 14.5 % errors with Fisher vectors "
        "(results/claims/baselines/), 21.4 % with the best network, modern_photos with ten views (results/imagenette.json).",
    ),
    Claim(
        id="C26",
        section="6, footnote",
        sentence="Without the ten views, from the center alone, the errors of C1 are 39.0 % and 18.3 %: averaging "
        "views helps.",
        printed="39.0 % top-1, 18.3 % top-5",
        logged="39.02, 18.30 (145-2010): ten views gain 1.55 and 1.30",
        decides="The same trained networks with ten views and with the center, top-1 and top-5 error.",
    ),
    Claim(
        id="C27",
        section="Table 2",
        sentence="The runner-up of 2012, several classifiers on Fisher vectors (SIFT), had a top-5 test error of "
        "26.2 %.",
        printed="26.2 % top-5, test",
        decides="As C25: whether the network is ahead of Fisher vectors on the same images; not the printed error.",
    ),
    Claim(
        id="C28",
        section="Table 2",
        sentence="On the validation images of 2012 one network has errors of 40.7 % and 18.2 %.",
        printed="40.7 % top-1, 18.2 % top-5",
        logged="40.66, 18.21 (145)",
        decides="code2012 trained on ILSVRC-2012, ten views, its validation images.",
        untested=_FULL_RUN,
    ),
    Claim(
        id="C29",
        section="Table 2",
        sentence="The average of five such networks is better than one: 38.1 % and 16.4 %.",
        printed="38.1 % top-1, 16.4 % top-5; test 16.4 % top-5",
        decides="The averaged probabilities of 2 to 5 networks of different seeds against the single networks, same "
        "images.",
    ),
    Claim(
        id="C30",
        section="Table 2",
        sentence="One network with a sixth convolutional layer, first trained on all of ImageNet (Fall 2011) and "
        "then on the 1000 classes, has 39.0 % and 16.6 %.",
        printed="39.0 % top-1, 16.6 % top-5; 15 million images, 22,000 classes",
        logged="38.99, 16.62 (146-2012-2011)",
        decides="Pre-training on other classes and fine-tuning, with six layers and five, against training from "
        "scratch: which is ahead.",
    ),
    Claim(
        id="C31",
        section="Table 2",
        sentence="Two pre-trained networks together with the five of C29 are best of all: 36.7 % and 15.4 %, 15.3 % "
        "on the test images.",
        printed="36.7 % top-1, 15.4 % top-5; test 15.3 % top-5",
        decides="The averaged probabilities of five networks from scratch and two pre-trained ones against the five "
        "alone.",
    ),
    Claim(
        id="C32",
        section="6",
        sentence="Validation and test error of the same system differ by no more than 0.1 points, so one may stand "
        "for the other.",
        printed="at most 0.1 points",
        decides="Both errors of several systems. At 16.4 % error, chance alone makes 50,000 and 150,000 independent "
        "images differ by 0.2 points (one standard deviation).",
        untested="The test labels of ILSVRC-2012 are not public.",
    ),
    Claim(
        id="C33",
        section="6",
        sentence="On all of ImageNet of Fall 2009 (10,184 classes, 8.9 million images, half of them for testing) a "
        "six-layer network has 67.4 % and 40.9 % against 78.1 % and 60.9 % before.",
        printed="67.4 % top-1, 40.9 % top-5 against 78.1 %, 60.9 %",
        logged="69.4, 43.7 (five layers: 2009-101 and 131-2009); the printed run is in no file",
        decides="alexnet_2012_six_conv on that set, split half and half.",
        untested="No such data here; the reader for class archives and the half-and-half split exist.",
    ),
    Claim(
        id="C34",
        section="6.1, Figure 3",
        sentence="In every run the conv1 kernels of one tower come to ignore color, those of the other to depend on "
        "it, whatever the initial weights.",
        decides="The color selectivity of the conv1 kernels by tower, over seeds, with a permutation test; towers "
        "connected and isolated.",
        elsewhere="The medians of the two towers are 0.029 and 0.908 in the real CaffeNet (p = 0.0001), 0.433 and 0.410 in "
        "paper2012_photos, one run (results/inside/towers.json).",
    ),
    Claim(
        id="C35",
        section="6.1, Figure 4",
        sentence="On eight test images the best five answers are mostly reasonable, even when the object is off "
        "center.",
        decides="A look at the answers for these images.",
        untested="Eight chosen pictures and a judgment by eye; no such images and no network trained on ImageNet here.",
    ),
    Claim(
        id="C36",
        section="6.1, Figure 4",
        sentence="Images whose last hidden vectors (4096 numbers) are close show the same thing, although their "
        "pixels are not close.",
        logged="128 queries, 16 hits each, squared Euclidean distance, at most one hit from each batch file "
        "(findsimilar.py)",
        decides="The share of nearest training images of the query's class, by distance in fc7 and in pixels, over a "
        "whole test split.",
    ),
    Claim(
        id="C37",
        section="6.1",
        sentence="Short binary codes from an autoencoder on those vectors should retrieve better than codes from an "
        "autoencoder on raw pixels.",
        decides="Mean average precision of the codes of both autoencoders at equal length, beside random hyperplanes.",
    ),
    Claim(
        id="C38",
        section="7",
        sentence="Unsupervised pre-training, which the paper does without, is expected to help, and the results improve "
        "with a larger network and with longer training.",
        logged="145 continued for 44 more epochs: 40.25, 17.99 (0.4 and 0.2 better)",
        decides="Autoencoder pre-training without labels against none; more epochs and more kernels against the "
        "recipe's.",
    ),
    Claim(
        id="C39",
        section="2",
        sentence="Images are brought to a short side of 256 pixels and cut to the center square; the mean image is "
        "subtracted, and nothing else is done.",
        printed="256 pixels",
        logged="the same (145); a scalar mean instead of the mean image was no better (136)",
        decides="Nothing to measure: it says what was done. The recipes paper2012 and code2012 do the same.",
        untested="A description of the method; no effect is claimed.",
    ),
)

_BEYOND = (
    Claim(
        id="N1",
        section="notes",
        sentence="With sigmoids the gradients vanish on the way to the first layers; with ReLU the network learns "
        "sooner.",
        decides="Epochs to 25 % training error, the rate chosen for each arm; the norm of the gradient in each layer "
        "for sigmoid, tanh and ReLU.",
    ),
    Claim(
        id="N2",
        section="notes",
        sentence="Leaky ReLU, PReLU and GELU, the successors of ReLU, learn sooner than it does.",
        decides="Epochs to 25 % training error, one arm each against ReLU, the rate chosen for each arm.",
    ),
    Claim(
        id="N3",
        section="notes",
        sentence="Max pooling is better than the average pooling of earlier networks.",
        decides="The same network with either, test error, paired seeds.",
    ),
    Claim(
        id="N4",
        section="2012 program",
        sentence="Normalization in layer 2 lowers the error further; the program's own log says that it does not.",
        logged="40.49, 18.12 (167, no normalizer in layer 2, a later schedule) against 40.66, 18.21 (145)",
        decides="Normalization in layers 1 and 2 against layer 1 alone, test error, paired seeds.",
    ),
    Claim(
        id="N5",
        section="2012 program",
        sentence="The order matters: to normalize after ReLU and before pooling, as the paper says, is better than "
        "before ReLU, as its program did, or after pooling, as CaffeNet does.",
        logged="145 normalizes layer 1 before ReLU; 166 moved the normalizer of layer 2 and got 41.10, 18.67 against "
        "about 40.5, 18.1",
        decides="The three orders, nothing else changed, test error, paired seeds.",
    ),
    Claim(
        id="N6",
        section="notes",
        sentence="Local response normalization is superseded: batch or layer normalization in its place gives fewer "
        "errors.",
        decides="Batch and layer normalization in its place, test error, paired seeds. Whether it is needed at all "
        "is C10.",
    ),
    Claim(
        id="N7",
        section="2012 program",
        sentence="Connections help: towers that never meet before the softmax are worse than the paper's, and these "
        "are worse than a network without towers.",
        logged="41.83, 19.33 (150, isolated, with wider conv2 and fully connected layers) against 40.66, 18.21 "
        "(145): 1.16 and 1.12 worse",
        decides="The paper's three joined layers against none, and against one tower of full width, test error, "
        "paired seeds.",
    ),
    Claim(
        id="N8",
        section="notes",
        sentence="Dropout does more than a well-chosen L2 penalty would; the notes say that it is one.",
        decides="For single units exact arithmetic over all masks; for the network a tuned weight decay instead of "
        "dropout, test error, paired seeds.",
    ),
    Claim(
        id="N9",
        section="notes",
        sentence="The network needs its regularization; the notes say that a good one trains without any.",
        decides="Dropout, decay, crops, mirror images and noise against none of them, test error, paired seeds.",
    ),
    Claim(
        id="N10",
        section="notes",
        sentence="How and where dropout is done matters: the paper's plain masks after fc6 and fc7 beat inverted "
        "ones, and masks before these layers.",
        decides="Plain against inverted, after against before, the same rates and initial weights, test error, "
        "paired seeds.",
    ),
    Claim(
        id="N11",
        section="notes",
        sentence="The large fully connected layers are a flaw: they hold most of the memory, and averaging each last "
        "map instead gives fewer errors.",
        decides="The share of parameters, counted; global average pooling instead of fc6 and fc7, test error, paired "
        "seeds.",
    ),
    Claim(
        id="N12",
        section="2012 program",
        sentence="Color noise by standard deviations, as in the program, is better than by eigenvalues, as printed, "
        "or by the constants that others copied.",
        printed="eigenvalues; others: .2175, .0188, .0045",
        logged="standard deviations 121.8, 37.1 and 19.7 on pixels of 0 to 255, and the noisy image divided by 1.1",
        decides="The three kinds of noise, test error, paired seeds.",
    ),
    Claim(
        id="N13",
        section="notes",
        sentence="Augmentation makes the results worse.",
        decides="With and without augmentation, at one mistuned rate for both and at the best rate for each, test "
        "error.",
    ),
    Claim(
        id="N14",
        section="notes",
        sentence="Biases may as well start at 0: the error ends lower than with the paper's 1.",
        decides="Biases at 1 and 0, test error at the end, paired seeds. Early learning is C22.",
    ),
    Claim(
        id="N15",
        section="notes",
        sentence="Initial weights of standard deviation 0.02, as in BERT, or 0.03 are better than the paper's 0.01.",
        printed="0.02 against 0.01",
        logged="0.03 in conv3, conv4 and conv5 (145)",
        decides="Twice and three times the initial weights, test error, paired seeds.",
    ),
    Claim(
        id="N16",
        section="notes",
        sentence="The noise of small batches helps.",
        logged='batches of 8 x 128 were "not good" (a trial with 137)',
        decides="Batches four and eight times as large for the same number of epochs, the rate chosen for each, test "
        "error.",
    ),
    Claim(
        id="N17",
        section="notes",
        sentence="Where the rate drops, the paper's rule, which keeps its velocity, does better than that of today's "
        "libraries.",
        decides="The paper's rule against torch's SGD with the same settings, test error, paired seeds. At a "
        "constant rate they are the same (C20).",
    ),
    Claim(
        id="N18",
        section="notes",
        sentence="Adam is faster than SGD but generalizes worse.",
        decides="SGD against AdamW with decay and without (which is Adam), the rate chosen for each: early loss, and "
        "test error.",
    ),
    Claim(
        id="N19",
        section="notes",
        sentence="A cosine with warm-up does better than dropping the rate.",
        decides="Plateau, logged table, fixed steps, and cosine with linear warm-up, same number of epochs, test "
        "error.",
    ),
    Claim(
        id="N20",
        section="notes",
        sentence="Wider layers and another rate cannot make up for a removed layer; the notes think that they can.",
        decides="Without each of conv2 to conv5, the others a quarter wider, against all five, the rate chosen for "
        "each, test error.",
    ),
    Claim(
        id="N21",
        section="notes",
        sentence="AlexNet has ten times the parameters of LeNet and takes 260 times the computation.",
        printed="10 times, 260 times",
        decides="Parameters and multiply-adds of the two networks that the textbook compares, counted.",
    ),
    Claim(
        id="N22",
        section="notes",
        sentence="AlexNet makes fewer errors than LeNet on the same images.",
        decides="Both on the same data, test error, paired seeds.",
    ),
    Claim(
        id="N23",
        section="notes",
        sentence="Today's training makes the 2012 network better than the training of 2012 did.",
        decides="The recipe modern against paper2012 on the same data for the same number of epochs, test error, "
        "paired seeds.",
        elsewhere="On 7,000 photographs (Imagenette, one run each, center) it does: 22.4 % errors with modern_photos, 38.8 % "
        "with paper2012_photos (results/imagenette.json).",
    ),
    Claim(
        id="N24",
        section="notes",
        sentence="A simple linear classifier on the last hidden layer does very well.",
        decides="A linear classifier on each layer from the pixels to fc7, error on the test split.",
    ),
    Claim(
        id="N25",
        section="notes",
        sentence="Laid out in two dimensions by t-SNE, the last hidden layer puts like beside like, and the pixels "
        "do not.",
        decides="Neighbor purity and silhouette of the maps of fc7 and of pixels.",
    ),
    Claim(
        id="N26",
        section="notes",
        sentence="Pre-training on other classes transfers: fine-tuned, the network is better than from scratch.",
        logged="six layers pre-trained on Fall 2011: 38.99, 16.62; on Fall 2009: 39.10, 16.88; five from scratch: "
        "40.66, 18.21",
        decides="Pre-trained on other classes and fine-tuned against from scratch, the same images and epochs of the "
        "target.",
    ),
    Claim(
        id="N27",
        section="2012 program",
        sentence="Coefficients of an ensemble searched on the validation images are better than the plain mean.",
        logged="avg-valid.py can search them by top-5 error; which coefficients the published ensembles had is in no "
        "file",
        decides="Ensembles of 2 to 7 networks with searched and with equal coefficients, error on images that the "
        "search never saw.",
    ),
    Claim(
        id="N28",
        section="notes",
        sentence="Dropout is hardly needed once the large fully connected layers are gone.",
        decides="The gain of dropout with fc6 and fc7, and without them.",
        untested="The network with averaged maps (N11) has no dropout that one could leave out.",
    ),
    Claim(
        id="N29",
        section="notes",
        sentence="For SGD, weight decay in the optimizer and an L2 penalty in the loss are the same thing.",
        decides="Exact arithmetic: the steps of the printed rule with decay, and without decay on the penalized loss.",
    ),
    Claim(
        id="N30",
        section="notes",
        sentence="With the paper's optimizer the network does not train on standardized images; Adam at 1e-4 is "
        "needed.",
        printed="Adam, 1e-4",
        decides="The paper's rule on pixels of 0 to 255 and on standardized ones, with its initial weights and with "
        "larger ones: whether the loss leaves ln(classes). The input's scale is the suspect.",
        untested="No paired runs; `train` checks the signal before the first step and names the scale where it would "
        "fail.",
    ),
    Claim(
        id="N31",
        section="2012 program",
        sentence="Four plateaus of equal length that fall exponentially do as well as drops by hand.",
        logged="40.53, 18.05 (170) against 40.66, 18.21 (145)",
        decides="Steps of a quarter of the run, each times 250^(-1/3), against the logged table, test error.",
        untested="No run here: the logged differences, below 0.2 points, are within chance for 50,000 images.",
    ),
    Claim(
        id="N32",
        section="notes",
        sentence="Averaging several random crops of the whole picture is a good answer to pictures of any size.",
        decides="Random crops against the center and the ten views, same networks, pictures at their original size.",
        untested="The packed sets hold center squares; `predict --views random:K` cuts from the whole picture.",
    ),
    Claim(
        id="N33",
        section="notes",
        sentence="Augmentation on the processor is what limits the speed of training.",
        decides="Images a second of decoding, of augmentation and of the step on the machine at hand.",
        untested="It depends on the machine: `alexnet bench` measures these and names the slowest.",
    ),
    Claim(
        id="N34",
        section="notes",
        sentence="Overlapping windows live on in later networks, as in the patches of PVT-v2.",
        decides="PVT-v2 with and without overlap.",
        untested="PVT-v2 is another network, which this package does not have.",
    ),
    Claim(
        id="N35",
        section="notes",
        sentence="Training uses the five crops of the test, four corners and the center, with their mirror images.",
        printed="5 crops",
        logged="random offsets 0 to 32 both ways (convdata_jpeg.py)",
        decides="A count of the crops that training draws.",
    ),
    Claim(
        id="N36",
        section="notes",
        sentence="The 0.01 of the initial weights and the 0.1 of the color noise are variances.",
        decides="The paper's text and the program's source: both are standard deviations.",
    ),
    Claim(
        id="N37",
        section="notes",
        sentence="The rate is divided by ten when the validation error rises.",
        decides="The paper's text: when it stops improving.",
    ),
)

CLAIMS: tuple[Claim, ...] = _PAPER + _BEYOND


def find_claim(id: str) -> Claim:
    """The claim of this id, in capitals or not; an unknown one is a :class:`UsageError` that says which there are."""
    for claim in CLAIMS:
        if claim.id == id.upper():
            return claim
    raise UsageError(
        f"unknown claim {printable(id)!r}; the claims are {_PAPER[0].id} to {_PAPER[-1].id} (the paper) and {_BEYOND[0].id} to "
        f"{_BEYOND[-1].id} (beyond it): see `alexnet claims list`"
    )
