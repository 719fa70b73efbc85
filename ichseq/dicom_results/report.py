"""The structured report (TID 1500): what is found by kind, with the score, and the key image of each by reference."""

from collections.abc import Mapping, Sequence

from highdicom.sr import (
    AlgorithmIdentification,
    DeviceObserverIdentifyingAttributes,
    EnhancedSR,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

import ichseq
from ichseq.ct.series import Series
from ichseq.dicom_results.identity import NAME, Answerer
from ichseq.dicom_results.words import (
    CATEGORY,
    FINDINGS,
    FLAGGED,
    FLAGGED_SLICES,
    PROBABILITY,
    PROCEDURE,
    RESEARCH_ONLY,
    SCHEMES,
    SCORE,
    SLICES,
    equipment,
)
from ichseq.predictions.findings import DEFAULT_RULE, ExamFindings, LabelFinding


def observer(answerer: Answerer) -> ObserverContext:
    """The device that observed."""
    device = DeviceObserverIdentifyingAttributes(
        uid=answerer.uid("device"), name=NAME, manufacturer_name=NAME, model_name=answerer.name,
        serial_number=ichseq.__version__
    )  # fmt: skip
    return ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)


def structured_report(
    findings: ExamFindings,
    series: Series,
    slices: Mapping[int, Dataset],
    answerer: Answerer,
    remarks: Sequence[str],
) -> EnhancedSR:
    """The report of an exam.

    Args:
        findings: of the exam.
        series: the exam's.
        slices: by number the key slices, those of labels that are not flagged too, as `reference` gives them.
        answerer: what answered.
        remarks: what a person should know, a sentence each.
    """
    groups = [_group(one, findings, series, slices, answerer) for one in findings.labels.values()]
    content = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=observer(answerer)),
        procedure_reported=PROCEDURE,
        imaging_measurements=groups,
    )
    for sentence in (f"{RESEARCH_ONLY}. {_meaning(findings)}", *remarks):
        content[0].ContentSequence.append(
            TextContentItem(codes.DCM.Comment, sentence, relationship_type=RelationshipTypeValues.CONTAINS)
        )
    evidence = [slices[number] for number in sorted(slices)]
    return EnhancedSR(
        evidence=evidence,
        content=content[0],
        series_instance_uid=answerer.uid_in(series, "report series"),
        sop_instance_uid=answerer.uid_in(series, "report"),
        instance_number=1,
        is_complete=True,
        content_qualification="RESEARCH",
        coding_schemes=SCHEMES,
        **equipment("report"),
    )


def _group(
    one: LabelFinding, findings: ExamFindings, series: Series, slices: Mapping[int, Dataset], answerer: Answerer
) -> MeasurementsAndQualitativeEvaluations:
    """The finding of one label."""
    answer = {True: codes.SCT.Yes, False: codes.SCT.No}
    also = [number for number, labels in findings.key_slices.items() if one.flagged and one.label in labels]
    key = dict.fromkeys([one.key_slice, *also])
    measured = [
        Measurement(PROBABILITY if findings.calibrated else SCORE, round(100 * one.score, 1), codes.UCUM.Percent),
        Measurement(FLAGGED_SLICES, len(one.flagged_slices), SLICES),
    ]
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(answerer.uid_in(series, "finding", one.label), one.label),
        finding_category=CATEGORY,
        finding_type=FINDINGS[one.label],
        algorithm_id=AlgorithmIdentification(f"{NAME}, {answerer.name}", ichseq.__version__),
        measurements=measured,
        qualitative_evaluations=[] if one.flagged is None else [QualitativeEvaluation(FLAGGED, answer[one.flagged])],
        source_images=[SourceImageForMeasurementGroup.from_source_image(slices[number]) for number in key],
    )


def _meaning(findings: ExamFindings) -> str:
    """What the figures mean, in a sentence or two."""
    figure = "a calibrated probability" if findings.calibrated else "the network's score, which ranks exams and is no "
    rule = "Flagged at the operating point that was fitted" if findings.fitted else DEFAULT_RULE.capitalize()
    return f"Each figure is {figure}{'' if findings.calibrated else 'probability'}. {rule}."
