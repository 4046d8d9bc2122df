"""A text classifier with weights set by hand, so that the effect of single words is known."""

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

GOOD = ("happy", "glad", "good", "fun", "nice", "smiled", "laughed", "loved", "love", "liked", "yes")
BAD = ("sad", "bad", "cried", "angry", "scared", "hurt", "mad", "mean", "no", "not")
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def word_classifier(labels=("NEGATIVE", "POSITIVE"), longest=32, **config):
    """BERT of one layer in which every token attends to all alike, so that its first says which words prevail.

    Returns:
        The classifier and its tokenizer; the label "NEGATIVE" gets the opposite of what all others get.
    """
    words = [*SPECIALS, *GOOD, *BAD]
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **{f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep")},
        model_max_length=longest,
    )
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=4,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=4,
        max_position_embeddings=longest,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        **config,
    )
    model = BertForSequenceClassification(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if name.endswith("LayerNorm.weight") else 0.0)
        embedding = model.bert.embeddings.word_embeddings.weight
        embedding[len(SPECIALS) : len(SPECIALS) + len(GOOD)] = torch.tensor([1.0, -1.0, 0.0, 0.0])
        embedding[len(SPECIALS) + len(GOOD) :] = torch.tensor([-1.0, 1.0, 0.0, 0.0])
        embedding[2] = torch.tensor([0.0, 0.0, 1.0, -1.0])
        attention = model.bert.encoder.layer[0].attention
        attention.self.value.weight.copy_(torch.eye(4))
        attention.output.dense.weight.copy_(10 * torch.eye(4))
        model.bert.pooler.dense.weight.copy_(torch.eye(4))
        model.classifier.weight[:, 0] = torch.tensor([-3.0 if label == "NEGATIVE" else 3.0 for label in labels])
    return model, tokenizer


def saved_classifier(folder, *args, **how):
    """The same, written to a folder."""
    for each in word_classifier(*args, **how):
        each.save_pretrained(folder)
    return folder
